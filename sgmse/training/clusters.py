"""Runs of several processes: who starts them, and whether there are as many as the settings say."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pytorch_lightning.plugins.environments import SLURMEnvironment

from sgmse.common.errors import UserError
from sgmse.settings.config import TrainConfig

_WITHOUT_STEPS = ("bash", "interactive")  # jobs of these names are shells, in which nothing is started by srun


@dataclass(frozen=True)
class Launch:
    """How this process was started. world: the processes of the run, those on other nodes among them."""

    by_slurm: bool
    world: int

    def __str__(self) -> str:
        count = f"{self.world} process" + ("es" if self.world > 1 else "")
        return f"the SLURM job has {count}" if self.by_slurm else f"torchrun started {count}"


def launched() -> Launch | None:
    """None where nobody started further processes; Lightning then starts those of this node itself."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return Launch(by_slurm=False, world=int(os.environ["WORLD_SIZE"]))
    if "SLURM_NTASKS" in os.environ and SLURMEnvironment.job_name() not in _WITHOUT_STEPS:
        return Launch(by_slurm=True, world=int(os.environ["SLURM_NTASKS"]))
    return None


def check_launch(train: TrainConfig) -> None:
    """Raise `UserError` where the processes are not those that the settings ask for: they would wait for ever."""
    launch, world = launched(), train.devices * train.num_nodes
    if launch is None:
        if train.num_nodes > 1:
            raise UserError(f"--num_nodes {train.num_nodes}: start the command on every node, with srun or torchrun")
        return
    per_node = os.environ.get("SLURM_NTASKS_PER_NODE" if launch.by_slurm else "LOCAL_WORLD_SIZE", str(train.devices))
    if launch.world != world or int(per_node) != train.devices:
        flag = "--ntasks-per-node of sbatch" if launch.by_slurm else "--nproc-per-node of torchrun"
        raise UserError(
            f"--devices {train.devices} --num_nodes {train.num_nodes} is {world}, but {launch}, {per_node} per node; "
            f"--devices must be the {flag}, and --num_nodes the number of nodes"
        )
    if world == 1:
        return
    if launch.by_slurm and "SLURM_STEP_NUM_TASKS" not in os.environ:
        raise UserError(f"{launch}, but this one would wait for the others; start the command with srun")
    if launch.by_slurm and "SLURM_NTASKS_PER_NODE" not in os.environ:
        raise UserError(f"--devices {train.devices}: give sbatch --ntasks-per-node={train.devices} instead of --ntasks")
    if train.run_dir is None and train.ckpt is None:
        raise UserError(f"{launch}, which share one run; name its folder with --run_dir")


def environment() -> list[SLURMEnvironment]:
    """Lightning's view of SLURM, without its own requeueing: `sgmse.training.interruption` answers the signals."""
    launch = launched()
    return [SLURMEnvironment(auto_requeue=False)] if launch is not None and launch.by_slurm else []
