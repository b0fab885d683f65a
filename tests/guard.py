"""What the commands make of two tiny checkpoints and six files: tables and sounds that a change of the code must keep.

`python tests/guard.py OUT` collects them in OUT, `python tests/guard.py --compare A B` says where two collections
differ, bit for bit. The checkpoints, in golden/guard/, were written by an early version of train.py; their weights were
moved at random, so that the condition has an effect.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import runpy
import shutil
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from tiny_experiments import SCALE

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden" / "guard"
NAMES = ("000", "003", "007", "010", "015", "021")  # of the embedded test set; three levels of noise, six kinds
CHANGING = {"seconds", "rtf", "date", "device", "code"}  # columns and entries that differ from run to run

ENHANCEMENTS = {
    "plain": [],
    "guided": ["--guidance_scale", "2", "--N", "3"],
    "adaptive": ["--guidance_scale", "adaptive"],
    "mismatched": ["--reference", "mismatched"],
    "none": ["--reference", "none"],
    "estimated": ["--reference", "estimated"],
    "self": ["--reference", "self"],
    "parts": ["--chunk_s", "1", "--overlap_s", "0.3", "--sampler", "bridge_sde", "--N", "2"],
    "samples": ["--num_samples", "2", "--sampler", "bridge_sde", "--N", "2"],
    "interval": ["--guidance_scale", "3", "--guidance_interval", "0.3", "0.8", "--N", "4"],
    "icg": ["--guidance", "icg", "--guidance_scale", "1.5"],
}
QUICK = {name: ENHANCEMENTS[name] for name in ("plain", "guided")}  # those of tests/test_guard.py


def run(command: str, *arguments: object) -> None:
    """Run a command of the repository in this process; what it prints is shown where it fails."""
    before, sys.argv = sys.argv, [command, *map(str, arguments)]
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            runpy.run_path(str(ROOT / command), run_name="__main__")
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"{' '.join(sys.argv)}\n{printed.getvalue()}") from end
    finally:
        sys.argv = before


def make_set(folder: Path) -> Path:
    """Six files of the embedded test set with their references and the lines of its manifest."""
    source = Path(str(files("sgmse"))) / "data" / "embedded" / "test"
    for part in ("noisy", "clean", "ref"):
        (folder / part).mkdir(parents=True)
        for name in NAMES:
            shutil.copyfile(source / part / f"{name}.flac", folder / part / f"{name}.flac")
    head, *rows = (source / "manifest.csv").read_text(encoding="utf-8").splitlines()
    (folder / "manifest.csv").write_text("\n".join([head, *(r for r in rows if r[:3] in NAMES)]) + "\n", "utf-8")
    return folder


def enhance(work: Path, chosen: dict[str, list[str]]) -> None:
    ckpt, common = work / "conditioned/checkpoints/last.ckpt", ["--device", "cpu", "--test_dir", work / "set"]
    for name, flags in chosen.items():
        run("enhancement_noise_cond.py", "--ckpt", ckpt, *common, "--enhanced_dir", work / "enhanced" / name, *flags)
    for shard in ("2/2", "1/2"):
        where = ("--enhanced_dir", work / "enhanced" / "baseline", "--shard", shard)
        run("enhancement_noise_cond.py", "--ckpt", work / "baseline/checkpoints/last.ckpt", *common, *where)


def evaluate(work: Path) -> None:
    folders = [work / "enhanced" / name for name in ("baseline", "plain", "adaptive")]
    folders = [folder for folder in folders if folder.is_dir()]
    where = ["--clean_dir", work / "set/clean", "--noisy_dir", work / "set/noisy", "--csv", work / "scores.csv"]
    run("scripts/evaluate.py", *where, "--enhanced_dir", *folders, "--jobs", "1")


def sweep(work: Path) -> None:
    grid = ["--scales", "0", "1", "2", "--steps", "1", "2", "--intervals", "none", "0.2:0.7", "--max_files", "4"]
    where = ["--ckpt", work / "conditioned/checkpoints/last.ckpt", "--test_dir", work / "set", "--out", work / "sweep"]
    run("scripts/guidance_sweep.py", *where, *grid, "--jobs", "1", "--device", "cpu")


def use(work: Path) -> None:
    checkpoints = [work / name / "checkpoints/last.ckpt" for name in ("conditioned", "baseline")]
    flags = ["--out", work / "use", "--jobs", "1", "--device", "cpu"]
    run("scripts/reference_use.py", checkpoints[0], work / "set", "--baseline", checkpoints[1], *flags)


def matrix(work: Path) -> None:
    """An experiment and its baseline at a scale that takes moments; the test sets are the six files."""
    for name in ("id", "valid"):
        shutil.copytree(work / "set", work / "ready" / name)
    (work / "moments.yaml").write_text(SCALE, encoding="utf-8")
    flags = ["--scale", work / "moments.yaml", "--test_sets", work / "ready", "--out", work / "matrix", "--seeds", "0"]
    run("scripts/run_experiments.py", "CFG-01", *flags, "--jobs", "1", "--device", "cpu")


PARTS = {"evaluate": evaluate, "sweep": sweep, "use": use, "matrix": matrix}


def collect(out: Path, parts: list[str], chosen: dict[str, list[str]] | None = None) -> Path:
    """Run the commands and keep what must stay: OUT/collected, without times, paths and the commit."""
    shutil.rmtree(out, ignore_errors=True)
    work = out / "work"
    shutil.copytree(GOLDEN / "inputs", work)
    make_set(work / "set")
    enhance(work, ENHANCEMENTS if chosen is None else chosen)
    for part in parts:
        PARTS[part](work)
    for path in sorted(work.rglob("*")):
        name = path.relative_to(work)
        if path.is_dir() or name.parts[0] in ("set", "ready", "conditioned", "baseline") or "trainings" in name.parts:
            continue
        content: Any = None
        if path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                rows = list(csv.DictReader(file))
            content = [{k: _plain(v, work) for k, v in row.items() if k not in CHANGING} for row in rows]
        elif path.name == "run.json":
            content = _without_times(json.loads(path.read_text(encoding="utf-8")), work)
        elif path.suffix in (".flac", ".wav"):
            content = soundfile.read(path)[0]
        if content is None:
            continue
        kept = out / "collected" / name
        kept.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, np.ndarray):
            np.save(kept.with_suffix(".npy"), content)
        else:
            kept.with_suffix(".json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    return out / "collected"


def _plain(value: str, work: Path) -> str:
    return value.replace(str(work.resolve()), "WORK").replace(str(work), "WORK")


def _without_times(content: Any, work: Path) -> Any:
    if isinstance(content, dict):
        kept = {k: _without_times(v, work) for k, v in sorted(content.items()) if k not in CHANGING}
        return kept | ({"files": sorted(kept["files"])} if "files" in kept else {})
    return _plain(content, work) if isinstance(content, str) else content


def differences(first: Path, second: Path) -> list[str]:
    """Where two collections differ, a line each."""
    names = sorted({p.relative_to(each).as_posix() for each in (first, second) for p in each.rglob("*.*")})
    lines = []
    for name in names:
        a, b = first / name, second / name
        if not (a.is_file() and b.is_file()):
            lines.append(f"{name}: only in {first if a.is_file() else second}")
        elif name.endswith(".npy"):
            x, y = np.load(a), np.load(b)
            if x.shape != y.shape or not np.array_equal(x, y):
                gap = "of other lengths" if x.shape != y.shape else f"by up to {np.abs(x - y).max():.2g}"
                lines.append(f"{name}: sounds differ {gap}")
        elif a.read_bytes() != b.read_bytes():
            lines += _table_differences(name, json.loads(a.read_text("utf-8")), json.loads(b.read_text("utf-8")))
    return lines


def _table_differences(name: str, a: Any, b: Any) -> list[str]:
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        pairs: list[tuple[object, Any, Any]] = [*zip(range(len(a)), a, b, strict=True)]
    elif isinstance(a, dict) and isinstance(b, dict):
        pairs = [(key, a.get(key), b.get(key)) for key in sorted(a.keys() | b.keys())]
    else:
        return [f"{name}: {str(a)[:120]} | {str(b)[:120]}"]
    return [line for key, x, y in pairs if x != y for line in _table_differences(f"{name} {key}", x, y)]


def store(out: Path) -> None:
    """Keep what tests/test_guard.py compares with, in golden/guard: two sounds of each setting are enough."""
    folder = collect(out, ["evaluate", "sweep", "use"], QUICK)
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*.*")):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".json":
            found[name] = np.array(path.read_text(encoding="utf-8"))
        elif path.stem in (NAMES[0], NAMES[3]):
            found[name] = np.load(path).astype(np.float16)
    np.savez_compressed(GOLDEN / "collected.npz", **found)


if __name__ == "__main__":
    if sys.argv[1] == "--compare":
        found = differences(Path(sys.argv[2]) / "collected", Path(sys.argv[3]) / "collected")
        print("\n".join(found) or "equal, bit for bit")
        sys.exit(bool(found))
    torch.set_num_threads(1)
    if sys.argv[1] == "--store":
        store(Path(sys.argv[2]))
        sys.exit()
    collect(Path(sys.argv[1]), sys.argv[2:] or list(PARTS))
