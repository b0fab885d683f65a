"""CPU seconds until a command has printed its help or refused a path, and until one file is enhanced."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.job import Job

ROOT = Path(__file__).parents[2]
NO_PATH = "no/such/path.ckpt"
REFUSED = {  # what stands in for a user's mistake; other commands take no path before they work
    "train.py": f"--base_dir {NO_PATH}",
    "enhancement_noise_cond.py": NO_PATH,
    "scripts/evaluate.py": f"--enhanced_dir {NO_PATH}",
    "scripts/doctor.py": f"--data {NO_PATH}",
    "scripts/guidance_sweep.py": f"--ckpt {NO_PATH} --test_dir .",
    "scripts/reference_use.py": f"{NO_PATH} .",
    "scripts/condition_probes.py": f"{NO_PATH} .",
    "scripts/noise_coverage.py": f"--ckpt {NO_PATH} --test_dir .",
    "scripts/reference_map.py": NO_PATH,
    "scripts/report.py": NO_PATH,
    "scripts/export_model.py": f"{NO_PATH} out",
    "scripts/show_noise.py": NO_PATH,
    "scripts/baseline_enhance.py": f"dtln {NO_PATH} out",
    "scripts/make_testset.py": f"ood --speech_dir {NO_PATH} --out out",
}


def list_commands() -> list[str]:
    """The commands of the repository, by their files."""
    return ["train.py", "enhancement_noise_cond.py", *(f"scripts/{p.name}" for p in sorted(ROOT.glob("scripts/*.py")))]


def measure_command(words: list[str], folder: Path) -> float:
    """CPU seconds of a process and those it started."""
    process = subprocess.Popen(
        [sys.executable, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, _, usage = os.wait4(process.pid, 0)
    return usage.ru_utime + usage.ru_stime


def list_cases(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """A title and the words of each command that is measured."""
    for file in list_commands():
        path = str(ROOT / file)
        yield f"{file} --help", [path, "--help"]
        if file in REFUSED:
            yield f"{file}, a wrong path", [path, *REFUSED[file].split()]
    noisy = next((ROOT / "sgmse/data/embedded/test/noisy").iterdir())
    out = str(folder / "out.wav")
    yield "enhance one file", [str(ROOT / "enhancement_noise_cond.py"), str(noisy), "--ckpt", "small", "-o", out]


def show_startup(job: Job) -> None:
    """Print a line per command; the median of the rounds."""
    with TemporaryDirectory() as name:
        for title, words in list_cases(Path(name)):
            seconds = [measure_command(words, Path(name)) for _ in range(job.rounds)]
            print(f"startup  {title:44}{'CPU seconds':17}", end="")
            print(*(f"{value:9.2f}" for value in (median(seconds), min(seconds), max(seconds))), flush=True)
