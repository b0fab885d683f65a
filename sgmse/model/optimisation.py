"""How the weights are trained: AdamW with warm-up and decay, and an exponential moving average of the weights.

Lightning no longer calls `train()` after validation, so an average that swaps inside `train()`/`eval()` restarts every
epoch from itself. `AveragedWeights`, keyed by parameter name, is swapped in by an explicit context and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from sgmse.settings.config import TrainConfig


def rate_factor(train: TrainConfig, step: int) -> float:
    """What the learning rate is multiplied by at a step: linear warm-up, then a constant or half a cosine to zero."""
    warm_up = min(1.0, (step + 1) / max(1, train.warmup_steps))
    if train.lr_decay == "none":
        return warm_up
    return warm_up * 0.5 * (1 + math.cos(math.pi * min(1.0, step / train.max_steps)))


def adopt_rates(checkpoint: dict[str, Any], train: TrainConfig) -> None:
    """Let a resumed run use the learning rates and the weight decay of `train` instead of those of its checkpoint."""
    for optimizer, scheduler in zip(checkpoint["optimizer_states"], checkpoint["lr_schedulers"], strict=True):
        rates = [train.lr, train.lr * train.encoder_lr_factor][: len(optimizer["param_groups"])]
        factor = rate_factor(train, scheduler["last_epoch"])
        for group, rate in zip(optimizer["param_groups"], rates, strict=True):
            group["initial_lr"], group["lr"], group["weight_decay"] = rate, rate * factor, train.weight_decay
        scheduler["base_lrs"], scheduler["_last_lr"] = rates, [rate * factor for rate in rates]


def adam(
    train: TrainConfig, parameters: Iterable[nn.Parameter], pretrained: list[nn.Parameter]
) -> OptimizerLRScheduler:
    """AdamW with its schedule over the parameters that are trained; those also in `pretrained` get their own rate."""
    slow = {id(p) for p in pretrained}
    trained = [p for p in parameters if p.requires_grad]
    groups = [{"params": [p for p in trained if id(p) not in slow], "lr": train.lr}]
    if slow:
        groups.append({"params": [p for p in trained if id(p) in slow], "lr": train.lr * train.encoder_lr_factor})
    optimizer = torch.optim.AdamW(groups, lr=train.lr, weight_decay=train.weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(train, step))
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


class AveragedWeights:
    """θ̄ ← d θ̄ + (1 − d) θ with d = min(decay, (1 + n) / (10 + n)) at the n-th update.

    Only parameters that require a gradient take part, so frozen encoders stay out.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.weights = {name: p.detach().clone() for name, p in _trained(module)}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move the average towards the module's weights."""
        self.num_updates += 1
        weight = 1 - min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        current = [p.detach() for _, p in _trained(module)]
        device = current[0].device
        if next(iter(self.weights.values())).device != device:
            self.weights = {name: w.to(device) for name, w in self.weights.items()}
        torch._foreach_lerp_(list(self.weights.values()), current, weight)

    @contextmanager
    def swapped_into(self, module: nn.Module) -> Iterator[None]:
        """Inside, the module has the averaged weights; afterwards its own, bit for bit."""
        raw = {name: p.detach().clone() for name, p in _trained(module)}
        self.copy_to(module)
        try:
            yield
        finally:
            _assign(module, raw)

    def copy_to(self, module: nn.Module) -> None:
        """Replace the module's weights by the average for good."""
        _assign(module, self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"decay": self.decay, "num_updates": self.num_updates, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with a stored average, at this one's decay. Raises KeyError when the names are not the module's."""
        if set(state["weights"]) != set(self.weights):
            raise KeyError("the averaged weights in the checkpoint do not belong to this model")
        self.num_updates = state["num_updates"]
        self.weights = {name: state["weights"][name].clone() for name in self.weights}


def _trained(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((name, p) for name, p in module.named_parameters() if p.requires_grad)


@torch.no_grad()
def _assign(module: nn.Module, weights: dict[str, Tensor]) -> None:
    for name, parameter in _trained(module):
        parameter.copy_(weights[name])
