"""Where the curves of a training go: always into CSV files, and where --logger says."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from sgmse.common.errors import UserError
from sgmse.common.files import write_text
from sgmse.settings.config import TrainConfig

PROJECT = "sgmse"  # of W&B
_WANDB_ID = "wandb_id.txt"


def check_wandb() -> None:
    """Raise `UserError` where W&B is to be reached and there is no key for it."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return
    import wandb

    try:
        wandb.login()
    except wandb.errors.UsageError as error:
        raise UserError(f"--logger wandb: {error} (or set WANDB_MODE=offline)") from None


def loggers(train: TrainConfig, folder: Path) -> list[Logger]:
    """The loggers of a run: CSV first. None at all with --nolog."""
    if train.nolog:
        return []
    version = next(f"curves_{i}" for i in range(1000) if not (folder / f"curves_{i}").exists())  # one per resumption
    found: list[Logger] = [CSVLogger(folder, name="", version=version)]
    if train.logger == "tensorboard":
        found.append(TensorBoardLogger(folder, name="", version="tensorboard"))
    elif train.logger == "wandb":
        found.append(_wandb(train, folder))
    return found


def _wandb(train: TrainConfig, folder: Path) -> WandbLogger:
    """A resumed run goes on under the same id, so that W&B shows one run."""
    return WandbLogger(
        project=PROJECT,
        name=train.wandb_name or folder.name,
        save_dir=str(folder),
        id=_kept_id(folder / _WANDB_ID),
        resume="allow",
        group=train.wandb_group,
        tags=train.wandb_tags or None,
    )


@rank_zero_only
def _kept_id(path: Path) -> str:
    """The id in the file; a new one without it."""
    if not path.is_file():
        write_text(path, secrets.token_hex(4) + "\n")
    return path.read_text(encoding="utf-8").strip()
