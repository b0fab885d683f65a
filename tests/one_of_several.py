"""One process of a training of several, with the environment that torchrun gives it: trains, is stopped, goes on.

Called as `python one_of_several.py STORE OUT ARGUMENTS`; the processes meet in the file STORE and leave in OUT what
each of them did.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch

from sgmse.commands import train
from sgmse.diffusion import adaptive as familiarity
from sgmse.model.score_model import NoiseCondScoreModel
from sgmse.training import validation

STOP_AT = 0  # the step in which one process has the signal, in the second training; the next step is the last


@contextmanager
def record_work(rank: int, out: Path) -> Iterator[None]:
    """Leaves the gradients of each step before clipping, the weights at the end, and which files were enhanced."""

    def on_before_optimizer_step(self, optimizer):
        gradients = {name: p.grad.clone() for name, p in self.named_parameters() if p.grad is not None}
        torch.save(gradients, out / f"gradients_{self.global_step}_{rank}.pt")

    def on_train_end(self):
        weights = {"raw": self.state_dict(), "average": self.average.weights}
        torch.save(weights, out / f"weights_{rank}.pt")

    original = validation.enhance_item

    def enhance_item(model, item, index, scales):
        with (out / f"files_{rank}.txt").open("a") as file:
            file.write(f"{index}\n")
        return original(model, item, index, scales)

    with (
        patch.object(NoiseCondScoreModel, "on_before_optimizer_step", on_before_optimizer_step),
        patch.object(NoiseCondScoreModel, "on_train_end", on_train_end),
        patch.object(validation, "enhance_item", enhance_item),
    ):
        yield


def exit_code(*arguments: str) -> int:
    sys.argv = ["train.py", *arguments]
    try:
        train.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@contextmanager
def signal_one_process(rank: int) -> Iterator[None]:
    """Process 1 alone gets a signal in the step `STOP_AT`."""
    step = NoiseCondScoreModel.training_step

    def training_step(self, batch, batch_idx):
        if rank == 1 and self.global_step == STOP_AT:
            os.kill(os.getpid(), signal.SIGUSR1)
        return step(self, batch, batch_idx)

    with patch.object(NoiseCondScoreModel, "training_step", training_step):
        yield


def main() -> None:
    store, out, *arguments = sys.argv[1:]
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    familiarity.NUM_REFERENCES = 8
    with record_work(rank, Path(out)):
        codes = [exit_code(*arguments, "--run_dir", f"{out}/whole")]
    again = (*arguments, "--num_eval_files", "0", "--run_dir", f"{out}/stopped")
    with signal_one_process(rank):
        codes.append(exit_code(*again))
    codes.append(exit_code(*again))
    (Path(out) / f"codes_{rank}.txt").write_text(" ".join(map(str, codes)))


if __name__ == "__main__":
    main()
