"""The cores, the device and the place among other processes that a command has."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile

from sgmse.common.errors import UserError

_SHARED_MEMORY = "/dev/shm"
_USER_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


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


def check_compiler(device: str) -> None:
    """Raise `UserError` where torch.compile lacks the compiler it needs: a C++ one on the CPU, a C one on CUDA."""
    kind, variable, usual = ("C++", "CXX", ["g++"]) if device == "cpu" else ("C", "CC", ["gcc", "clang"])
    named = [os.environ[variable]] if variable in os.environ else usual
    if not any(map(shutil.which, named)):
        names = " or ".join(named)
        raise UserError(f"--compile needs a {kind} compiler, and {names} is not found; install it or add --no_compile")


def is_first_process() -> bool:
    """Whether this process is the first of a distributed training, or the only one; asked without Lightning."""
    ranks = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK")  # the first that is set counts, as there
    return int(next((os.environ[name] for name in ranks if name in os.environ), 0)) == 0


def complete_environment() -> None:
    """Name a temporary folder and a user where the machine has none, as in a read-only container.

    Without them matplotlib, torch and tempfile refuse to be imported or to work, though nothing may have to be kept.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        if os.access(_SHARED_MEMORY, os.W_OK):
            os.environ["TMPDIR"] = _SHARED_MEMORY
    if not any(os.environ.get(name) for name in _USER_NAMES):
        try:
            pwd.getpwuid(os.getuid())
        except KeyError:
            os.environ |= {"USER": str(os.getuid()), "HOME": os.environ.get("HOME") or tempfile.gettempdir()}
