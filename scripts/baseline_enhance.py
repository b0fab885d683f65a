"""Enhance a set with a strong enhancer of others, whose weights come inside a Python package: a row beside ours.

  dtln   DTLN (Westhausen & Meyer 2020), causal, 16 kHz
  dfn3   DeepFilterNet3 (Schröter et al. 2023), 48 kHz

Neither takes a noise reference. The files of SET/noisy (or of SET) go to OUT under their names; those that it made of
the same files before are kept. `scripts/evaluate.py` scores OUT like any folder.

example:
  python scripts/baseline_enhance.py dtln SET enhanced/dtln
  python scripts/evaluate.py --clean_dir SET/clean --noisy_dir SET/noisy --enhanced_dir enhanced/dtln enhanced/ours
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np

from sgmse.common.bounds import InputDir, OneOf
from sgmse.common.errors import UserError, run
from sgmse.common.files import file_digest
from sgmse.common.lock import locked_folder
from sgmse.common.progress import track
from sgmse.common.typed import print_next
from sgmse.data import audio, listing
from sgmse.evaluation.baselines import BASELINES, load_baseline
from sgmse.settings.cli import positional, read_command_line


@dataclass(frozen=True)
class BaselineSettings:
    """What to enhance with which"""

    name: Annotated[str, OneOf(tuple(BASELINES))] = positional()
    """the enhancer"""
    test_set: InputDir = positional()
    """folder of noisy files, or with noisy/ inside"""
    out: Path = positional()
    """where the enhanced files go"""


def main() -> None:
    settings = read_command_line(BaselineSettings, __doc__)
    # this loads pandas, which --help need not wait for
    from sgmse.evaluation.results import Results, differing_facts, read_facts

    folder = settings.test_set / "noisy"
    folder = folder if folder.is_dir() else settings.test_set
    headers = listing.read_headers(listing.find(folder, "noisy files"))  # all that cannot be read are named at once
    if settings.out.resolve() == folder.resolve():
        raise UserError(f"{settings.out}: holds the noisy files; name another folder for the enhanced ones")
    names = {info.path: info.path.relative_to(folder).as_posix() for info in headers}
    facts = {"enhancer": settings.name}
    with locked_folder(settings.out, "filled"):
        is_foreign = not read_facts(settings.out) and any((settings.out / name).exists() for name in names.values())
        if is_foreign or differing_facts(settings.out, facts):
            raise UserError(
                f"{settings.out}: nothing says that {settings.name} made what it holds; name another folder"
            )
        enhance, results = load_baseline(settings.name), Results(settings.out, facts)
        print(f"{settings.name}: {BASELINES[settings.name].origin}")
        made = {row["file"]: (row["input"], row["output"]) for row in results.rows()}
        missing = [i for i in headers if made.get(names[i.path]) != _digests(i.path, settings.out / names[i.path])]
        for path, rate in track([(i.path, i.sample_rate) for i in missing], len(missing), settings.name):
            output = settings.out / names[path]
            enhanced = np.stack([enhance(channel, rate) for channel in audio.read(path, None, mono=False)])
            audio.write(output, enhanced, rate)
            digests = dict(zip(("input", "output"), _digests(path, output), strict=True))
            results.add([{"checkpoint": "", "setting": settings.name, "file": names[path], **digests}])
    print(f"{len(missing)} of {len(headers)} files enhanced into {settings.out}")
    clean = ["--clean_dir", settings.test_set / "clean"] if (settings.test_set / "clean").is_dir() else []
    print_next("scripts/evaluate.py", *clean, "--noisy_dir", folder, "--enhanced_dir", settings.out, "--page", "page")


def _digests(noisy: Path, output: Path) -> tuple[str, str]:
    return file_digest(noisy), file_digest(output) if output.is_file() else ""


if __name__ == "__main__":
    run(main)
