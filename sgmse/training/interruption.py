"""How a training of several processes is started, and how any training is stopped.

A signal ends a training after the step at hand, one of several processes at the latest after the next. SLURM sends
SIGUSR1 where it is told to (`#SBATCH --signal=USR1@120`), and SIGTERM some time before SIGKILL.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.environments import SLURMEnvironment

from sgmse.common.errors import UserError
from sgmse.settings.config import TrainConfig

EXIT_CODE = 85  # the same command, started again, goes on
SIGNALS = (signal.SIGUSR1, signal.SIGTERM)
_WITHOUT_STEPS = ("bash", "interactive")  # jobs of these names are shells, in which nothing is started by srun


Question = tuple[torch.Tensor, dist.Work]  # the answer, once it is there


class Preempted(SystemExit):
    """Ends the process with `EXIT_CODE`."""

    def __init__(self) -> None:
        super().__init__(EXIT_CODE)


class Preemption(Checkpoint):
    """Stops a training after the step in which a signal arrives, and writes `last` with the state after that step.

    Validation is left at once, since `last` is written before each: the resumed run does it again. Among several
    processes one that has the signal is enough, and all stop after the same step. They ask each other while the step
    is computed, and not by way of their devices, so that nobody waits for an answer. As a `Checkpoint` it is called
    after the callbacks that save at this step.
    """

    def __init__(self) -> None:
        self.last = Path()
        self.training = False
        self._signal: str | None = None
        self._pid = os.getpid()
        self._group: dist.ProcessGroup | None = None  # of several processes
        self._question: Question | None = None

    def receive(self, number: int, frame: FrameType | None = None) -> None:
        """The handler of a signal. Before training there is nothing to save."""
        if os.getpid() != self._pid:  # a copy in a process that prepares batches
            return
        self._signal = signal.Signals(number).name
        if not self.training:
            print(f"stopped by {self._signal} before training; start the same command again", file=sys.stderr)
            raise Preempted

    def on_train_start(self, trainer: pl.Trainer, model: pl.LightningModule) -> None:
        self.handle_signals()  # Lightning has put its own handlers there by now
        self.training = True
        self._group = dist.new_group(backend="gloo") if trainer.world_size > 1 else None

    def on_train_batch_start(self, trainer: pl.Trainer, model: pl.LightningModule, batch: Any, batch_idx: int) -> None:
        if _ends_step(trainer, batch_idx) and self._group is not None:
            self._question = self._ask()

    def on_train_batch_end(
        self, trainer: pl.Trainer, model: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if _ends_step(trainer, batch_idx) and self._is_asked():
            trainer.save_checkpoint(self.last)
            raise Preempted

    def on_validation_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self.leave()

    def leave(self) -> None:
        """Stop here if a signal has come. Every process must call it equally often."""
        self._question = None
        if self._is_asked():
            raise Preempted

    def _ask(self) -> Question:
        """Begin to ask all processes whether any has a signal."""
        flag = torch.tensor(self._signal is not None, dtype=torch.uint8)
        return flag, dist.all_reduce(flag, dist.ReduceOp.MAX, self._group, async_op=True)

    def _is_asked(self) -> bool:
        """Whether any process has a signal, or had one when they began to ask."""
        if self._group is None:
            return self._signal is not None
        flag, answer = self._question or self._ask()
        answer.wait()
        return bool(flag)

    @property
    def reason(self) -> str:
        return self._signal or "a signal to another process"

    def handle_signals(self) -> None:
        for number in SIGNALS:
            signal.signal(number, self.receive)


@contextmanager
def watch_signals() -> Iterator[Preemption]:
    """Inside, the signals are answered; afterwards by what answered them before."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    preemption = Preemption()
    preemption.handle_signals()
    try:
        yield preemption
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ends_step(trainer: pl.Trainer, batch_idx: int) -> bool:
    """Whether the optimiser follows this batch."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0


def find_launcher() -> Literal["torchrun", "srun"] | None:
    """Who started the processes of this run; None: nobody, and Lightning then starts those of this node itself."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return "torchrun"
    if "SLURM_NTASKS" in os.environ and SLURMEnvironment.job_name() not in _WITHOUT_STEPS:
        return "srun"
    return None


def check_launch(train: TrainConfig) -> None:
    """Raise `UserError` where the processes are not those that the settings ask for: they would wait for ever."""
    launcher, world = find_launcher(), train.devices * train.num_nodes
    if launcher is None:
        if train.num_nodes > 1:
            raise UserError(f"--num_nodes {train.num_nodes}: start the command on every node, with srun or torchrun")
        return
    if launcher == "srun":
        count, per_node, flag = "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE", "--ntasks-per-node of sbatch"
    else:
        count, per_node, flag = "WORLD_SIZE", "LOCAL_WORLD_SIZE", "--nproc-per-node of torchrun"
    started, on_node = int(os.environ[count]), int(os.environ.get(per_node, train.devices))
    processes = f"{started} process{'es' if started > 1 else ''}"
    found = f"the SLURM job has {processes}" if launcher == "srun" else f"torchrun started {processes}"
    if started != world or on_node != train.devices:
        raise UserError(
            f"--devices {train.devices} --num_nodes {train.num_nodes} is {world}, but {found}, {on_node} per node; "
            f"--devices must be the {flag}, and --num_nodes the number of nodes"
        )
    if world == 1:
        return
    if launcher == "srun" and "SLURM_STEP_NUM_TASKS" not in os.environ:
        raise UserError(f"{found}, but this one would wait for the others; start the command with srun")
    if launcher == "srun" and per_node not in os.environ:
        raise UserError(f"--devices {train.devices}: give sbatch --ntasks-per-node={train.devices} instead of --ntasks")
    if train.run_dir is None and train.ckpt is None:
        raise UserError(f"{found}, which share one run; name its folder with --run_dir")


def slurm_plugins() -> list[SLURMEnvironment]:
    """Lightning's view of SLURM, without its own requeueing: `Preemption` answers the signals."""
    return [SLURMEnvironment(auto_requeue=False)] if find_launcher() == "srun" else []
