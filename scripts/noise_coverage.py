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

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from sgmse.common.bounds import File, InputDir, InputModel
from sgmse.common.errors import UserError, run
from sgmse.common.files import require_own_folder, write_csv
from sgmse.common.machine import cores
from sgmse.common.typed import print_next
from sgmse.settings.cli import read_command_line
from sgmse.settings.config import Count


@dataclass(frozen=True)
class CoverageSettings:
    """Models, sets, and where gains come from"""

    ckpt: InputModel = field(kw_only=True)
    """checkpoint of a conditioned model"""
    test_dir: list[InputDir] = field(kw_only=True)
    """sets with noisy/, ref/"""
    train: list[Path] = field(default_factory=list)
    """settings of the training (.yaml), or folders of noise to take instead of that of the run"""
    scores: File | None = None
    """scores of each file, to take gains from"""
    gain: list[str] = field(default_factory=list)
    """two systems: the gain is the first's PESQ minus the second's. Default: matched baseline, else matched null"""
    baseline: InputModel | None = None
    """checkpoint of the model without reference"""
    out: Path = Path("coverage")
    """folder of the results"""
    max_files: Count | None = None
    """so many files, spread over a set. Default: all"""
    batch_size: Count = 8
    """files enhanced at a time"""
    encoder_checkpoint: str | None = None
    """weights of a frozen clap or panns encoder"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the network runs"""
    jobs: Count = field(default_factory=cores)
    """scoring processes. Default: the cores"""


def main() -> None:
    """Map, distances, and what they say about the gain."""
    settings = read_command_line(CoverageSettings, __doc__)
    check_settings(settings)
    # these take seconds to load, which --help and a mistake need not wait for
    import pandas as pd
    import torch

    from sgmse.diagnostics import coverage, use
    from sgmse.diagnostics.coverage_figures import draw_distances, draw_map
    from sgmse.diagnostics.items import load_conditioned

    config, noise_dirs = coverage.find_training_settings(settings.ckpt, settings.train)
    model = load_conditioned(settings.ckpt, settings.device, settings.encoder_checkpoint)
    gains, what = None, "matched − baseline"
    baselines = [] if settings.baseline is None else use.load_baselines([settings.baseline], settings.ckpt)
    if settings.scores is not None:
        gains, what = coverage.read_gains(settings.scores, settings.gain, [folder.name for folder in settings.test_dir])
    sets = [coverage.embed_set(model, folder, settings.max_files) for folder in settings.test_dir]
    table, vectors = pd.concat([rows for rows, _ in sets], ignore_index=True), torch.cat([found for _, found in sets])
    if gains is not None and coverage.match_gains(gains, table).isna().all():
        raise UserError(f"{settings.scores}: has no gain for any file of --test_dir; name the scores of these sets")
    require_own_folder(settings.out, ["coverage.csv"])
    references = coverage.draw_training_references(model, config, noise_dirs)
    training, familiarity = coverage.embed_training(model, references)
    table = table.assign(**coverage.measure_distances(training, familiarity, vectors))
    write_csv(table, settings.out / "coverage.csv")
    draw_map(training.numpy(), table, vectors.numpy(), settings.out / "map.png")
    print(coverage.describe_distances(table))
    for baseline in baselines:
        other, how = baseline.model.to(model.device), (settings.max_files, settings.batch_size, settings.jobs)
        gains = coverage.measure_gains(model, other, settings.test_dir, settings.out, *how)
    if gains is None:
        print("\nno gain is known: give --scores or --baseline to hold the distances against it")
        sets = ("--ckpt", settings.ckpt, "--test_dir", *settings.test_dir)
        print_next("scripts/noise_coverage.py", *sets, "--baseline", "BASELINE_CKPT")
        return
    table = table.assign(gain=coverage.match_gains(gains, table))
    lines = coverage.correlate_sets(table)
    write_csv(table, settings.out / "coverage.csv")
    draw_distances(table, lines, what, settings.out / "distance.png")
    print(coverage.describe_correlations(lines, what))
    print_next("scripts/reference_use.py", settings.ckpt, settings.test_dir[0])


def check_settings(settings: CoverageSettings) -> None:
    """Raise `UserError` for settings that contradict each other."""
    if settings.scores is not None and settings.baseline is not None:
        raise UserError("--scores and --baseline both say what the gain is; give one of them")
    if settings.gain and settings.scores is None:
        raise UserError("--gain names two systems of a table of scores; give --scores, or leave it out")
    if len({folder.name for folder in settings.test_dir}) < len(settings.test_dir):
        raise UserError("--test_dir: two sets have the same name, by which they are told apart; rename a folder")


if __name__ == "__main__":
    run(main)
