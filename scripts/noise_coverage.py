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
from pathlib import Path

import pandas as pd

from sgmse.common.errors import UserError, run
from sgmse.common.machine import Parser, cores
from sgmse.diagnostics import coverage, gain
from sgmse.diagnostics.items import require_encoder, require_writable
from sgmse.enhancement.sweep_scoring import scorer
from sgmse.model.enhancer import Enhancer


def main() -> None:
    """Map, distances, and what they say about the gain."""
    arguments = parse_arguments()
    config, noise_dirs = coverage.find_training_settings(arguments.ckpt, arguments.train)
    model, out = Enhancer.from_checkpoint(arguments.ckpt, arguments.device, arguments.encoder_checkpoint), arguments.out
    require_encoder(model, arguments.ckpt)
    gains, what, baseline = None, "matched − baseline", load_baseline(arguments)
    if arguments.scores is not None:
        sets = [folder.name for folder in arguments.test_dir]
        gains, what = gain.of_scores(arguments.scores, arguments.gain, sets)
    table, vectors = coverage.embed_sets(model, arguments.test_dir, arguments.max_files)
    if gains is not None and not pd.Series(gain.of_files(gains, table)).notna().any():
        raise UserError(f"{arguments.scores}: has no gain for any file of --test_dir; name the scores of these sets")
    require_writable(out)
    references = coverage.draw_training_references(model, config, noise_dirs)
    table = coverage.write_distances(model, references, table, vectors, out)
    print(coverage.describe_distances(table))
    if baseline is not None:
        gains = enhanced_gains(arguments, model, baseline)
    if gains is None:
        print("\nno gain is known: give --scores or --baseline to hold the distances against it")
    else:
        print(coverage.write_gains(table.assign(gain=gain.of_files(gains, table)), what, out))


def load_baseline(arguments: argparse.Namespace) -> Enhancer | None:
    """The model of --baseline, if that is given. Raises `UserError` where it takes references."""
    if arguments.baseline is None:
        return None
    baseline = Enhancer.from_checkpoint(arguments.baseline, arguments.device)
    if baseline.encoder is not None:
        raise UserError(f"--baseline {arguments.baseline}: has a noise encoder; name one trained with --encoder none")
    return baseline


def enhanced_gains(arguments: argparse.Namespace, model: Enhancer, baseline: Enhancer) -> pd.Series:
    """Gains by set and file over the baseline, enhanced and scored here."""
    out, most, size = arguments.out / "scores", arguments.max_files, arguments.batch_size
    with scorer(arguments.jobs) as score:
        return pd.concat(
            [gain.of_baseline(model, baseline, folder, out, most, size, score) for folder in arguments.test_dir]
        )


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
