"""How the weights are trained: Adam, warm-up, decay."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import nn


@dataclass(frozen=True)
class Optimisation:
    """How the weights are trained.

    Args:
        lr: learning rate of Adam, reached after `warmup_steps` steps of linear growth.
        encoder_lr_factor: factor on it for pretrained weights that are trained along.
        decay_steps: steps over which a cosine then brings it to zero, or 0 for a constant rate.
        ema_decay: of the averaged weights.
        seed: drives diffusion times, noise and dropping.
    """

    lr: float
    encoder_lr_factor: float
    warmup_steps: int
    decay_steps: int
    ema_decay: float
    seed: int

    def factor(self, step: int) -> float:
        """What the learning rate is multiplied by at a step."""
        warm_up = min(1.0, (step + 1) / max(1, self.warmup_steps))
        decay = 0.5 * (1 + math.cos(math.pi * min(1.0, step / self.decay_steps))) if self.decay_steps else 1.0
        return warm_up * decay

    def take_over(self, checkpoint: dict[str, Any]) -> None:
        """Let a resumed run use these learning rates instead of those that its checkpoint was written with."""
        for optimizer, scheduler in zip(checkpoint["optimizer_states"], checkpoint["lr_schedulers"], strict=True):
            rates = [self.lr, self.lr * self.encoder_lr_factor][: len(optimizer["param_groups"])]
            factor = self.factor(scheduler["last_epoch"])
            for group, rate in zip(optimizer["param_groups"], rates, strict=True):
                group["initial_lr"], group["lr"] = rate, rate * factor
            scheduler["base_lrs"], scheduler["_last_lr"] = rates, [rate * factor for rate in rates]


def adam(o: Optimisation, parameters: Iterable[nn.Parameter], pretrained: list[nn.Parameter]) -> OptimizerLRScheduler:
    """Adam with its schedule over the parameters that are trained; those also in `pretrained` get their own rate."""
    slow = {id(p) for p in pretrained}
    trained = [p for p in parameters if p.requires_grad]
    groups = [{"params": [p for p in trained if id(p) not in slow], "lr": o.lr}]
    if slow:
        groups.append({"params": [p for p in trained if id(p) in slow], "lr": o.lr * o.encoder_lr_factor})
    optimizer = torch.optim.Adam(groups, lr=o.lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, o.factor)
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
