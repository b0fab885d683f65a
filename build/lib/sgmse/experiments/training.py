"""The cell `train`: one training, whatever the number of experiments that share it, as a process of its own.

A training that crashes, in whatever way, takes nothing else with it, and its log opens with what to type to repeat it.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml

from sgmse.common import machine
from sgmse.common.errors import UserError
from sgmse.common.files import write_text
from sgmse.common.lock import hold
from sgmse.data import corpora
from sgmse.data.corpora import manifest
from sgmse.data.corpora.manifest import Clip
from sgmse.encoders import weights
from sgmse.experiments.catalogue import VOICEBANK
from sgmse.experiments.work import Cell, Product, Work
from sgmse.model import checkpoints
from sgmse.model.enhancer import Enhancer
from sgmse.training.interruption import EXIT_CODE, SIGNALS, Preempted
from sgmse.training.resumption import read_validations

CHECKPOINTS = ("best_pesq", "last")  # those to choose from, the preferred one first
_GRACE_S = 60.0  # after Ctrl-C, which the command has had too


def write_settings(work: Work, name: str) -> Path:
    """The settings of a training as a config file, beside its runs; they are the same for every seed."""
    path = work.folder / "trainings" / name / "settings.yaml"
    values = dict(work.plan.trainings[name].settings) | data_settings(work, name)
    opening = f"# {', '.join(work.plan.experiments_of(name))}\n"
    text = opening + yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
    return path


def data_settings(work: Work, name: str) -> dict[str, Any]:
    """The settings of a training that name the folders it reads."""
    return work.plan.data.settings(work.plan.trainings[name].corpora, work.folder / "speech")


def data_read(work: Work) -> dict[str, str]:
    """The data settings of all trainings as JSON, each with the name of one training that reads these data."""
    return {json.dumps(data_settings(work, name)): name for name in work.plan.trainings}


def prepare_speech(work: Work) -> None:
    """List the clean speech of VoiceBank-DEMAND if a training of the plan mixes it with other noise."""
    data, out = work.plan.data, work.folder / "speech"
    mixes = any(len(training.corpora) > 1 for training in work.plan.trainings.values())
    if data.data_dir is None or not mixes:
        return
    with hold(work.lock("speech")):  # the tasks of an array begin at the same time
        if not (out / manifest.MANIFEST).is_file():
            write_speech(Path(data.data_dir) / VOICEBANK, out)


def write_speech(voicebank: Path, out: Path) -> Path:
    """Write `out`/manifest.csv with the clean training and validation speech of prepared VoiceBank-DEMAND.

    For dynamic mixing with other noise: `train.py --speech_dir OUT`. No audio is copied.
    """
    clips = []
    for split in ("train", "valid"):
        for pair in corpora.paired_files(voicebank, split):
            speaker = pair.clean.path.stem.partition("_")[0]
            clips.append(Clip(pair.clean.path, "speech", speaker, split, pair.clean.sample_rate, pair.clean.seconds))
    return manifest.write(out, clips)


def train(work: Work, cell: Cell) -> Product:
    """Start the run, or go on with it, until it is complete.

    The product: the columns of trainings.csv that a run answers, and the hashes of the checkpoints to choose from.
    """
    folder = work.place(cell)
    words = ["-m", "sgmse.commands.train", "--config", str(write_settings(work, cell.name))]
    words += ["--seed", str(cell.seed), "--run_dir", str(folder), "--device", work.device, "--logger", work.logger]
    if work.logger == "wandb":
        smoke = ["smoke"] if work.training(cell).smoke else []
        tags = [*work.plan.experiments_of(cell.name), f"seed{cell.seed}", work.plan.scale, *smoke]
        words += ["--wandb_name", f"{cell.name}_seed{cell.seed}", "--wandb_group", cell.name, "--wandb_tags", *tags]
    if torch.cuda.is_initialized():  # what evaluations left in this process must not lack in the training's
        torch.cuda.empty_cache()
    work.launch(words, work.log(cell))
    found = find_checkpoints(folder)
    model = Enhancer.from_checkpoint(found[0], "cpu")
    total = sum(p.numel() for p in model.parameters())
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    rows = read_validations(folder / "validation.csv")
    return {
        "steps": int(checkpoints.read(folder / "checkpoints" / "last.ckpt")["global_step"]),
        # up to the last validation, those before a resumption included
        "minutes": round(float(rows[-1]["seconds"]) / 60, 2) if rows else 0.0,
        "device": machine.device(work.device),
        "parameters_trained": trained,
        "parameters_frozen": total - trained,
        "smoke": model.encoder is not None and model.encoder.identity == weights.RANDOM,
        "checkpoints": {path.stem: weights.identity(path) for path in found},
    }


def find_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a run to choose from: best PESQ and last; one where the two are of the same step."""
    paths = [folder / "checkpoints" / f"{name}.ckpt" for name in CHECKPOINTS]
    there = [path for path in paths if path.is_file()]
    if not there:
        raise UserError(f"{folder / 'checkpoints'}: holds no checkpoint; remove {folder} to train anew")
    return list({checkpoints.read(path)["global_step"]: path for path in there}.values())


class Failed(Exception):
    """A command ended with an error: its last words."""


class Launcher:
    """Runs one command at a time. A signal of the scheduler stops that command in its own way, else this process."""

    def __init__(self) -> None:
        self._running: subprocess.Popen[bytes] | None = None
        self._signalled = False
        self._pid = os.getpid()

    @contextmanager
    def handling_signals(self) -> Iterator[None]:
        """Inside, SIGUSR1 and SIGTERM end a running command and then, or at once, raise `Preempted`."""
        if threading.current_thread() is not threading.main_thread():  # where Python allows no handlers
            yield
            return
        before = {number: signal.signal(number, self._receive) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def __call__(self, command: Sequence[str], log: Path) -> None:
        """Run a command (what follows `python`), whose lines are appended to `log`; its progress bars are shown only.

        Raises `Failed`, or `Preempted` where a signal stopped the command or this process.
        """
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {shlex.join(['python', *command])}\n")
            file.flush()
            code = self._run([sys.executable, *command], file)
        if code == EXIT_CODE or self._signalled:
            raise Preempted
        if code:
            raise Failed(_read_last_words(log, code))

    def _run(self, words: Sequence[str], log: io.TextIOWrapper) -> int:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        with subprocess.Popen(words, **streams) as self._running:  # type: ignore[call-overload]
            try:
                assert self._running.stdout is not None
                # With newline="" a line ends with \n, or with the \r of a progress bar, and keeps its end.
                for line in io.TextIOWrapper(self._running.stdout, encoding="utf-8", errors="replace", newline=""):
                    _show(line.strip())
                    if not line.endswith("\r") and line.strip():
                        log.write(line)
                        log.flush()
                _show("")
                return self._running.wait()
            except KeyboardInterrupt:
                try:
                    self._running.wait(_GRACE_S)
                except subprocess.TimeoutExpired:
                    self._running.kill()
                raise
            finally:
                self._running = None

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._pid:  # a copy in a process that scores
            return
        self._signalled = True
        if self._running is None:
            raise Preempted
        self._running.send_signal(signal.SIGUSR1)


def _show(line: str) -> None:
    """Replace the line on the screen, if there is one."""
    if sys.stderr.isatty():
        width = shutil.get_terminal_size().columns
        sys.stderr.write("\r\033[K" + line[: width - 1])
        sys.stderr.flush()


def _read_last_words(log: Path, code: int) -> str:
    """The sentence with which a command refused its input, else the end of its traceback, or the signal."""
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}, maybe for lack of memory"
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    refused = [line for line in lines if line.startswith("error: ")]
    last = "it printed nothing" if lines[-1].startswith("$ python") else lines[-1]
    words = refused[-1].removeprefix("error: ") if refused and code == 2 else last
    return f"{words[:300]} (exit code {code})"
