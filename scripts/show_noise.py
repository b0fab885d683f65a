"""Draw what a model is fed: a sheet of spectrograms with mixture, noise and noise references, one row per item.

Each row has one colour scale, so that the level of a reference can be compared with that of the noise.

examples:
  python scripts/show_noise.py sets/esc50 --out sheet.png
      items of a test set, with the references under every protocol that it holds, and that estimated from the mixture
  python scripts/show_noise.py --config logs/RUN/config.yaml
      what the training of that run draws, with its augmentation (without --config: the defaults)
  python scripts/show_noise.py --speech_dir SPEECH --noise_dir NOISE --num 8
"""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sgmse.common.bounds import File, FileName, InputDir
from sgmse.common.errors import UserError, run
from sgmse.common.files import whole_file
from sgmse.common.typed import print_next
from sgmse.data import audio, listing
from sgmse.data.references.estimated import estimate_noise
from sgmse.data.testsets.build import PROTOCOLS, folder_of, read_rows
from sgmse.settings import cli
from sgmse.settings.checks import check_data
from sgmse.settings.cli import read_command_line
from sgmse.settings.config import TRAIN_GROUPS, Count, DataConfig, ModelConfig, TrainConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Row = dict[str, np.ndarray]  # title of a panel → waveform [N]
_MARGIN = 255  # white, where a row holds fewer panels


@dataclass(frozen=True)
class SheetSettings:
    """What to draw"""

    set: InputDir | None = field(default=None, metadata={"positional": True})
    """folder of a test set"""
    speech_dir: list[str] = field(default_factory=list)
    """speech, as for train.py"""
    noise_dir: list[str] = field(default_factory=list)
    """noise, as for train.py"""
    config: list[FileName] = field(default_factory=list)
    """settings, as for train.py"""
    num: Count = 4
    """items"""
    out: File = Path("sheet.png")
    """PNG file to write"""


def main() -> None:
    """Draw the sheet."""
    settings = read_command_line(SheetSettings, __doc__)
    if settings.out.suffix.lower() != ".png":
        raise UserError(f"--out {settings.out}: the sheet is a PNG file; let the name end in .png")
    if settings.set is None:
        rows, rate = training_rows(settings)
    elif settings.speech_dir or settings.noise_dir or settings.config:
        raise UserError("a test set holds its own speech and noise; leave --speech_dir, --noise_dir and --config out")
    else:
        rows, rate = set_rows(settings.set, settings.num)
    write_sheet(rows, rate, settings.out)
    print(f"{settings.out}: {len(rows)} items")
    if settings.set is not None:
        print_next("enhancement_noise_cond.py", settings.set, "--ckpt", "CKPT")
        return
    words = [("--config", settings.config), ("--speech_dir", settings.speech_dir), ("--noise_dir", settings.noise_dir)]
    print_next("train.py", *[word for flag, names in words for name in names for word in (flag, name)])


def set_rows(folder: Path, num: int) -> tuple[list[Row], int]:
    """Items spread evenly over a test set, and its rate."""
    items = read_rows(folder)
    folders = {protocol: folder / folder_of(protocol) for protocol in PROTOCOLS}
    references = {name: listing.by_name(path, name) for name, path in folders.items() if path.is_dir()}
    noisy, clean = (listing.by_name(folder / name, f"{name} speech") for name in ("noisy", "clean"))
    rows: list[Row] = []
    for place in np.unique(np.linspace(0, len(items) - 1, min(num, len(items))).round().astype(int)):
        name = items[place]["id"]
        for found in (noisy, clean, *references.values()):
            if name not in found:
                raise UserError(f"{folder}: {name} of the manifest lacks a file; build the set anew")
        rate = audio.info(noisy[name]).sample_rate
        mixture, target = audio.read(noisy[name], rate), audio.read(clean[name], rate)
        title = f"{name.rpartition('_')[2]} {items[place].get('kind', '')} {items[place].get('snr_db', '?')} dB"
        shown = {title: mixture, "noise": mixture - target}
        shown |= {protocol: audio.read(found[name], rate) for protocol, found in references.items()}
        estimate = estimate_noise(mixture, rate, seed=0)
        rows.append(shown | {f"estimated ({estimate.way})": estimate.reference})
    return rows, rate


def training_rows(settings: SheetSettings) -> tuple[list[Row], int]:
    """The first items that training would draw, and their rate."""
    from sgmse.training.datamodule import build_datamodule  # loads Lightning, which takes seconds

    parser = cli.make_parser(TRAIN_GROUPS, "")
    argv = [word for name in settings.config for word in ("--config", name)]
    for flag in ("speech_dir", "noise_dir"):
        argv += [word for name in getattr(settings, flag) for word in (f"--{flag}", name)]
    values = cli.parse(parser, argv)[-1].values
    if settings.speech_dir or settings.noise_dir:
        values["base_dir"] = None
    model, data = cli.take(ModelConfig, values), cli.take(DataConfig, values)
    check_data(data, model)
    module = build_datamodule(data, model, cli.take(TrainConfig, values).seed)
    rows: list[Row] = []
    for key in range(settings.num):
        item = {name: tensor.numpy() for name, tensor in module.train[key].items()}
        shown = {f"item {key}: mixture": item["noisy"], "noise": item["noisy"] - item["clean"]}
        reference = item["reference"][: int(item["reference_length"])]
        rows.append(shown | ({"reference": reference} if len(reference) else {}))
    return rows, model.sample_rate


def write_sheet(rows: list[Row], rate: int, path: Path) -> None:
    """One picture with a row of spectrograms per item; it appears whole or not at all."""
    from matplotlib import image

    from sgmse.evaluation import figures

    pictures = [drawn(figures.side_by_side(row, rate)) for row in rows]
    width = max(picture.shape[1] for picture in pictures)
    padded = [np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0)), constant_values=_MARGIN) for p in pictures]
    with whole_file(path) as part:
        image.imsave(part, np.vstack(padded), format="png")


def drawn(figure: Figure) -> np.ndarray:
    """The picture of a figure, 8-bit RGBA [H, W, 4]."""
    from matplotlib import image

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    buffer.seek(0)

    return (image.imread(buffer) * 255).round().astype(np.uint8)


if __name__ == "__main__":
    run(main)
