"""Sweep guidance scale × guidance interval × steps (× sampler) with one checkpoint on one test set, in one go.

SET holds noisy/, clean/ and references, as scripts/make_testset.py writes them. Every reference is encoded once, files
of equally many frames are enhanced as one batch, every cell draws the same noise for a file. DIR gets

  sweep.csv    a row per cell and file; a rerun with the same settings goes on, cell by cell (results.sqlite)
  table.md     a line per cell: cost, PESQ, ESTOI and SI-SDR with 95 % intervals over files, paired differences to w = 1
  curves.png   PESQ and SI-SDR over evaluations and over network passes
  pareto.png   the cells that no cheaper one surpasses
  page/        index.html with all of it: differences to w = 1 as forest plots first, then quality over cost

Choose on validation mixtures, then report the chosen cell on the test set: the best of many cells is biased upwards.

examples:
  python scripts/guidance_sweep.py --ckpt CKPT --test_dir SET --out sweep
  python scripts/guidance_sweep.py --ckpt CKPT --test_dir SET --scales 1 3 --intervals none 0.2:0.8 --steps 3 5
  python scripts/guidance_sweep.py --ckpt OUVE --test_dir SET --scales 1 --samplers pc dpm1 dpm2 dpm2:quadratic
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sgmse.common.bounds import InputDir, InputModel
from sgmse.common.errors import run
from sgmse.common.files import require_own_folder, write_json, write_text
from sgmse.common.lock import locked_folder
from sgmse.common.machine import cores
from sgmse.common.typed import print_next
from sgmse.settings.cli import read_command_line
from sgmse.settings.config import Count, Seed

if TYPE_CHECKING:
    import pandas as pd

    from sgmse.enhancement.test_set import TestSet
    from sgmse.evaluation.results import Results
    from sgmse.model.enhancer import Enhancer


@dataclass(frozen=True)
class SweepSettings:
    """What is swept"""

    ckpt: InputModel
    """checkpoint"""
    test_dir: InputDir
    """folder with noisy/, clean/, ref/"""
    out: Path = Path("sweep")
    """folder of the results"""
    scales: list[float] | None = None
    """guidance scales. Default: 0 1 1.5 2 3 5 7"""
    intervals: list[str] = field(default_factory=lambda: ["none"])
    """diffusion times between which guidance acts, e.g. none 0.2:0.8; none: it acts everywhere"""
    steps: list[Count] = field(default_factory=lambda: [1, 3, 5, 10])
    """numbers of sampling steps"""
    samplers: list[str] = field(default_factory=lambda: ["auto"])
    """samplers, each with or without a schedule, e.g. dpm2:quadratic; auto: the checkpoint's"""
    reference: Literal["disjoint", "same_class", "other_take", "mismatched"] | None = None
    """where references come from. Default: SET/ref"""
    metrics: list[str] = field(default_factory=list)
    """metrics beside PESQ, ESTOI and SI-SDR, e.g. right_talker"""
    max_files: Count | None = None
    """so many files, spread over the set. Default: all"""
    batch_size: Count = 8
    """files at a time"""
    precision: Literal["32", "bf16-mixed"] = "32"
    """arithmetic of the network"""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """where the network runs"""
    seed: Seed = 0
    """drives sampling"""
    jobs: Count = field(default_factory=cores)
    """scoring processes. Default: the cores"""


def main() -> None:
    settings = read_command_line(SweepSettings, __doc__)
    # these take seconds to load, which --help and a mistake need not wait for
    from sgmse.enhancement.engine import Engine, enhance_and_score, score_noisy
    from sgmse.enhancement.lookup import check_inputs, open_test_set
    from sgmse.enhancement.settings import sweep_settings
    from sgmse.evaluation import sweep
    from sgmse.evaluation.metrics import select_metrics
    from sgmse.evaluation.results import Results
    from sgmse.evaluation.scores import scorer
    from sgmse.model.enhancer import Enhancer

    asked = select_metrics(settings.metrics)
    model = Enhancer.from_checkpoint(settings.ckpt, settings.device)
    protocol = settings.reference if model.encoder is not None else "none"
    test_set = open_test_set(settings.test_dir, protocol, is_scored=True, max_files=settings.max_files)
    planned = sweep_settings(
        model,
        settings.samplers,
        settings.steps,
        settings.scales,
        settings.intervals,
        test_set.protocol,
        settings.seed,
    )
    check_inputs(test_set, test_set.items, test_set.protocol, model.settings["n_fft"], model.settings["sample_rate"])
    facts = shared_facts(settings, model, test_set)
    require_own_folder(settings.out, ["results.sqlite"])
    with locked_folder(settings.out, "filled"), scorer(settings.jobs, asked) as score:
        results = Results(settings.out, facts)
        write_json(settings.out / "sweep.json", facts)
        if results.changed:
            print(f"all cells are done again: {results.describe_change()}")
        done = sum(len(results.files(model.checkpoint_sha256, setting.key)) > 0 for setting in planned)
        print(
            f"{len(planned)} cells of {len(test_set.items)} files, {done} done already; references: {test_set.protocol}"
        )
        try:
            engine = Engine(model, settings.batch_size, settings.precision)
            score_noisy(test_set, results, score, engine)
            enhance_and_score(engine, test_set, planned, results, score)
        finally:
            results.write_csv(settings.out / "sweep.csv", sweep.columns(asked))
    report(results, settings, asked)


def report(results: Results, settings: SweepSettings, asked: Sequence[str]) -> None:
    """Print the table and write it with its pictures."""
    from sgmse.evaluation import sweep
    from sgmse.evaluation.sweep_page import write_page

    out_dir = settings.out
    frame = results.frame([*sweep.columns(asked), "source"])
    lines = sweep.summarise_cells(frame)
    text = sweep.markdown(lines)
    print(f"\n{text}")
    write_text(out_dir / "table.md", text)
    sweep.draw_curves(lines, out_dir / "curves.png")
    sweep.draw_pareto(lines, out_dir / "pareto.png")
    files = f"{frame['file'].nunique()} files, {(lines['nfe'] > 0).sum()} cells"
    page = write_page(lines, out_dir / "page", f"Guidance and steps: {out_dir.name}", f"{files}.")
    missing = int(frame["pesq"].isna().sum())
    if missing:
        print(f"{missing} rows have no PESQ; the column reason of sweep.csv says why")
    print(f"{out_dir}: sweep.csv, table.md, curves.png, pareto.png; {page}")
    cells = lines[lines["nfe"] > 0]
    if len(cells) and cells["pesq"].notna().any():
        best = cells.loc[cells["pesq"].idxmax()]
        print_next("enhancement_noise_cond.py", "TEST_SET", "--ckpt", settings.ckpt, *cell_flags(best))


def cell_flags(cell: pd.Series) -> list[str]:
    """The flags with which enhancement does what a cell of the sweep did."""
    sampler = cell["sampler"].removesuffix(":quadratic")
    words = ["--sampler", sampler, *([] if sampler == "rk45" else ["--N", str(cell["N"])])]
    words += ["--schedule", "quadratic"] if sampler != cell["sampler"] else []
    words += ["--guidance_scale", f"{cell['guidance_scale']:g}"]
    return words + ([] if cell["interval"] == "none" else ["--guidance_interval", *cell["interval"].split(":")])


def shared_facts(settings: SweepSettings, model: Enhancer, test_set: TestSet) -> dict[str, Any]:
    """What all cells share; cells done under other facts are done again."""
    facts = {
        "command": "guidance_sweep",
        "checkpoint_sha256": model.checkpoint_sha256,
        "averaged_weights": model.averaged,
        "test_dir": str(settings.test_dir.resolve()),
        "reference": test_set.protocol,
        "files": [item.name for item in test_set.items],
        "fingerprint": test_set.fingerprint(),
        "seed": settings.seed,
        "t_eps": model.t_eps,
        "precision": settings.precision,
        "device": model.device.type,
        "batch_size": settings.batch_size,
    }
    return facts | ({"metrics": sorted(settings.metrics)} if settings.metrics else {})


if __name__ == "__main__":
    run(main)
