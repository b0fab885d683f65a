"""The cores, the device and the place among other processes that a command has."""

from __future__ import annotations

import os

from sgmse.common.errors import UserError


def cores() -> int:
    """Cores this process may use, which a cluster's scheduler often limits."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def device(wanted: str) -> str:
    """cpu or cuda. Raises `UserError` where cuda is asked for and absent."""
    import torch  # seconds, which processes that score need not pay

    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is visible; use --device cpu")
    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return wanted


def is_first_process() -> bool:
    """Whether this process is the first of a distributed training, or the only one; asked without Lightning."""
    ranks = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # the first that is set counts, as there
    return int(next((os.environ[name] for name in ranks if name in os.environ), 0)) == 0
