"""Are test references where the training put its own? Maps and distances of embeddings, and the gain over distance.

The references that the training drew (--train: its settings, by default the config.yaml beside the checkpoint) and
those of each SET, as the encoder hears them. DIR gets

  map.png        both in one map, by PCA and by t-SNE
  coverage.csv   a row per test file: distances from the training references, and the gain where it is known
  distance.png   the gain over the distances, where it is known

The Mahalanobis distance is the one by which --guidance_scale adaptive chooses w. The gain in PESQ comes from a table of
scores (--scores: columns file, pesq, and system or experiment), or from --baseline, which is enhanced and
scored here. The coverage theory predicts Spearman's ρ of distance and gain below 0.

examples:
  python scripts/noise_coverage.py --ckpt CKPT --test_dir SET/id SET/ood --out coverage
  python scripts/noise_coverage.py --ckpt CKPT --test_dir SET/id SET/ood --baseline BASELINE_CKPT
  python scripts/noise_coverage.py --ckpt CKPT --test_dir SET --scores use/scores.csv --gain matched baseline
"""

# Not coverage.py: numba imports a package of that name, and Python looks beside the script first.

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import torch

from sgmse.common.errors import UserError, run
from sgmse.common.files import write_csv
from sgmse.common.machine import Parser, cores
from sgmse.diagnostics import coverage, coverage_plots, gain
from sgmse.diagnostics.coverage import DISTANCES, Correlation
from sgmse.diagnostics.items import require_encoder, require_writable
from sgmse.enhancement.sweep_scoring import scorer
from sgmse.model.enhancer import Enhancer


def main() -> None:
    """Map, distances, and what they say about the gain."""
    arguments = parse_arguments()
    config, noise_dirs = training_settings(arguments.ckpt, arguments.train)
    model = Enhancer.from_checkpoint(arguments.ckpt, arguments.device, arguments.encoder_checkpoint)
    require_encoder(model, arguments.ckpt)
    known, baseline = scored_gains(arguments), load_baseline(arguments)
    sets = [coverage.hear_set(model, folder, arguments.max_files) for folder in arguments.test_dir]
    table, vectors = pd.concat([rows for rows, _ in sets], ignore_index=True), torch.cat([found for _, found in sets])
    if known is not None and not pd.Series(gain.of_files(known[0], table)).notna().any():
        raise UserError(f"{arguments.scores}: has no gain for any file of --test_dir; name the scores of these sets")
    require_writable(arguments.out)
    training = coverage.hear_training(model, coverage.training_references(model, config, noise_dirs))
    table = table.assign(**coverage.distances(training, vectors))
    out = arguments.out
    coverage_plots.write_map(training.vectors.numpy(), table, vectors.numpy(), out / "map.png")
    show_distances(table)
    if baseline is not None:
        known = enhanced_gains(arguments, model, baseline), "matched − baseline"
    if known is not None:
        table = table.assign(gain=gain.of_files(known[0], table))
        lines = coverage.correlations(table)
        coverage_plots.write_distances(table, lines, known[1], out / "distance.png")
        show_correlations(lines, known[1])
    else:
        print("\nno gain is known: give --scores or --baseline to hold the distances against it")
    write_csv(table, out / "coverage.csv")


def training_settings(ckpt: Path, train: Sequence[Path]) -> tuple[Path, list[str]]:
    """The settings of the training, and folders of noise to take instead of those they name."""
    files = [path for path in train if path.suffix in (".yaml", ".yml")]
    if len(files) > 1:
        raise UserError(f"--train {files[1]}: names a second file of settings; give one")
    folders = [path for path in train if path not in files]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--train {folder}: is no folder of noise, nor a .yaml file of settings; check the path")
    config = files[0] if files else ckpt.parent.parent / "config.yaml"
    if not config.is_file():
        raise UserError(
            f"{config}: no such file, so nothing says what {ckpt} was trained on; name the settings of its run with "
            "--train"
        )
    return config, [str(folder) for folder in folders]


def scored_gains(arguments: argparse.Namespace) -> tuple[pd.Series, str] | None:
    """Gains by set and file from --scores, if that is given, and what they are the difference of."""
    if arguments.scores is None:
        return None
    return gain.of_scores(arguments.scores, arguments.gain, [folder.name for folder in arguments.test_dir])


def load_baseline(arguments: argparse.Namespace) -> Enhancer | None:
    """The model of --baseline, if that is given. Raises `UserError` where it takes references."""
    if arguments.baseline is None:
        return None
    baseline = Enhancer.from_checkpoint(arguments.baseline, "cpu")
    if baseline.encoder is not None:
        raise UserError(f"--baseline {arguments.baseline}: has a noise encoder; name one trained with --encoder none")
    return baseline


def enhanced_gains(arguments: argparse.Namespace, model: Enhancer, baseline: Enhancer) -> pd.Series:
    """Gains by set and file over the baseline, enhanced and scored here."""
    baseline.to(model.device)
    out, most, size = arguments.out / "scores", arguments.max_files, arguments.batch_size
    with scorer(arguments.jobs) as score:
        return pd.concat(
            [gain.of_baseline(model, baseline, folder, out, most, size, score) for folder in arguments.test_dir]
        )


def show_distances(table: pd.DataFrame) -> None:
    """Per set, how far its references are; a training reference is beyond 1 in 1 of 20 cases."""
    print(f"{'set':20}  files  median distance: {', '.join(DISTANCES)}; beyond 1")
    for name, rows in table.groupby("set", sort=False):
        middle, beyond = rows[[*DISTANCES]].median(), (rows[[*DISTANCES]] > 1).mean()
        shown = "   ".join(f"{middle[distance]:.2f}, {beyond[distance]:.0%}" for distance in DISTANCES)
        print(f"{name!s:20}  {len(rows):5}  {shown}")


def show_correlations(lines: pd.DataFrame, what: str) -> None:
    """What each distance says, for all sets together and for each."""
    for distance, title in DISTANCES.items():
        own = lines[lines["distance"] == distance]
        print(f"\n{title} and gain ({what})")
        for _, line in own.iterrows():
            found = Correlation(line["rho"], line["low"], line["high"], line["files"])
            print(f"{line['set']}: {coverage.verdict(found)}")


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ckpt", type=Path, required=True, metavar="FILE", help="checkpoint of a conditioned model")
    parser.add_argument("--test_dir", type=Path, nargs="+", required=True, metavar="SET", help="sets with noisy/, ref/")
    train = "settings of the training (.yaml), or folders of noise to take instead of that of the run"
    parser.add_argument("--train", type=Path, nargs="+", default=[], metavar="FILE", help=train)
    parser.add_argument("--scores", type=Path, metavar="CSV", help="scores of each file, to take gains from")
    pair = "the gain is the first's PESQ minus the second's (default: matched baseline, else matched null)"
    parser.add_argument("--gain", nargs=2, metavar="NAME", help=pair)
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="checkpoint of the model without reference")
    parser.add_argument("--out", type=Path, default=Path("coverage"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--max_files", type=int, metavar="N", help="so many files, spread over a set (default: all)")
    parser.add_argument("--batch_size", type=int, default=8, metavar="N", help="files enhanced at a time (default: 8)")
    parser.add_argument("--encoder_checkpoint", metavar="FILE", help="weights of a frozen clap or panns encoder")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where the network runs")
    parser.add_argument("--jobs", type=int, default=cores(), metavar="N", help="scoring processes (default: the cores)")
    arguments = parser.parse_args()
    for flag in ("max_files", "batch_size", "jobs"):
        if getattr(arguments, flag) is not None and getattr(arguments, flag) < 1:
            raise UserError(f"--{flag} {getattr(arguments, flag)}: 1 or more is needed")
    if arguments.scores is not None and arguments.baseline is not None:
        raise UserError("--scores and --baseline both say what the gain is; give one of them")
    if arguments.gain is not None and arguments.scores is None:
        raise UserError("--gain names two systems of a table of scores; give --scores, or leave it out")
    if len({folder.name for folder in arguments.test_dir}) < len(arguments.test_dir):
        raise UserError("--test_dir: two sets have the same name, by which they are told apart; rename a folder")
    return arguments


if __name__ == "__main__":
    run(main)
