"""`NoiseCondScoreModel`, the training of an `Enhancer`: encode → drop → perturb → predict → loss."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from sgmse.common.errors import UserError
from sgmse.data.loaders import mismatched
from sgmse.diffusion import adaptive, losses
from sgmse.diffusion.adaptive import Familiarity
from sgmse.diffusion.conditioning import Condition, keep_mask
from sgmse.diffusion.losses import Perturbed
from sgmse.diffusion.samplers import BRIDGE_END, SamplerSettings, gaussian, step_times
from sgmse.diffusion.sde import per_item
from sgmse.model.build import make_auxiliary
from sgmse.model.enhancer import Enhancer
from sgmse.model.optimisation import AveragedWeights, adam, adopt_rates
from sgmse.settings.checks import has_pesq_loss
from sgmse.settings.config import ModelConfig, TrainConfig

Batch = dict[str, Tensor]
LOG_EVERY = 50  # steps between points of the training curves
TIME_BINS = 5  # of equal width in diffusion time, in which the loss is watched


class Diverged(ArithmeticError):
    """The training left the finite numbers. The message says where."""


class NoiseCondScoreModel(Enhancer, pl.LightningModule):
    """An `Enhancer` that can be trained.

    Args:
        config, sampler, load_pretrained: see `Enhancer`.
        train: how it is trained; None for a model that is only used.
    """

    def __init__(
        self,
        config: ModelConfig,
        sampler: SamplerSettings,
        train: TrainConfig | None = None,
        load_pretrained: bool = True,
    ) -> None:
        super().__init__(config, sampler, load_pretrained)
        self.optimisation = train
        # heads that only a training needs
        self.auxiliary = None if train is None else make_auxiliary(config)
        self.average = None if train is None else AveragedWeights(self, train.ema_decay)
        self._pesq_loss: tuple[nn.Module, ...] = ()  # in a tuple, so that it stays out of checkpoints
        if train is not None and has_pesq_loss(config):
            self._pesq_loss = (losses.PesqDistance(config.sample_rate),)
        if train is not None and train.lr_decay == "cosine" and train.max_steps < 1:
            raise UserError("--lr_decay cosine ends at max_steps; give --max_steps")
        self._training_references: list[Tensor] = []  # of the familiarity; the same at every validation
        self._time_bins: Tensor
        self.register_buffer("_time_bins", torch.zeros(2, TIME_BINS), persistent=False)

    def start_from(self, name: str | Path) -> str:
        """Take the weights of another model over, wherever names and sizes agree. Call it before any training.

        Args:
            name: see `Enhancer.from_checkpoint`; averaged weights are taken.

        Returns:
            A sentence that says what was taken, what is new here, and what was left.

        Raises:
            UserError: there is no such model, or nothing of it fits.
        """
        source = Enhancer.from_checkpoint(name, "cpu").state_dict()
        own = self.state_dict()
        taken = {key: w for key, w in source.items() if key in own and own[key].shape == w.shape}
        if not taken:
            raise UserError(
                f"--init_ckpt {name}: no weight of it fits this model; choose the settings it was made with"
            )
        self.load_state_dict(taken, strict=False)
        if self.optimisation is not None:
            self.average = AveragedWeights(self, self.optimisation.ema_decay)
        new, left = _count_by_part(own.keys() - taken.keys()), _count_by_part(source.keys() - taken.keys())
        return f"{len(taken)} weights are those of {name}; new here: {new}; left out: {left}"

    # ---- one training item ----

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean loss of a batch {clean, noisy [B, N], reference [B, M], reference_length [B]}."""
        micro_step = batch_idx % self.trainer.accumulate_grad_batches
        step = (self.global_step, micro_step, self.global_rank)
        condition = self.encode(batch["reference"], batch["reference_length"])
        auxiliary = self._auxiliary(batch, condition)
        condition = self._drop(condition, self._generator(*step, 1))
        loss, t = self.loss(batch, condition, self._generator(*step))  # the baseline draws the same times and noise
        self._log_training(loss, t, batch)
        return loss.mean() + auxiliary

    def _drop(self, condition: Condition | None, generator: torch.Generator) -> Condition | None:
        if condition is None or self.null is None:
            return condition
        keep = keep_mask(len(condition.vector), self.cond_drop_prob, generator, self.device)
        return condition.where(keep, self.null(condition))

    def _auxiliary(self, batch: Batch, condition: Condition | None) -> Tensor | float:
        """The sum of the auxiliary losses []; each is logged."""
        if self.auxiliary is None or self.encoder is None or condition is None:
            return 0.0
        values = self.auxiliary(batch, condition, self.encoder)
        self.log_dict({f"train_{name}": value for name, value in values.items()}, batch_size=len(batch["clean"]))
        return torch.stack(list(values.values())).sum()

    def loss(self, batch: Batch, condition: Condition | None, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Perturb, predict, compare: losses [B] at random diffusion times [B]."""
        y = self.transform(batch["noisy"])
        perturbed = self._perturb(self.transform(batch["clean"]), y, generator)
        prediction = self.predict(perturbed.x_t, y, perturbed.t, condition)
        loss = self.objective.loss(prediction, perturbed, self.settings)
        if self.objective.predicts == "clean":
            with torch.autocast(self.device.type, enabled=False):  # PESQ's filters know 32 bit only
                loss = self._add_waveform_losses(loss, prediction, batch["clean"])
        return loss, perturbed.t

    def _perturb(self, clean: Tensor, y: Tensor, generator: torch.Generator) -> Perturbed:
        """x_t from clean and noisy spectrograms [B, C, F, T] at random times."""
        if self.objective.one_step:  # the last time, where the bridge is at y: nothing is drawn
            t = torch.full((len(clean),), self.sde.end_time, device=clean.device)
            return Perturbed(clean, y, t, mean=y, sigma=torch.zeros_like(t), z=torch.zeros_like(y))
        t = self._draw_times(len(clean), generator)
        z = gaussian(generator)(clean)
        mean, sigma = self.sde.mean(clean, y, t), self.sde.std(t)
        return Perturbed(clean, mean + per_item(sigma, z) * z, t, mean, sigma, z)

    def _draw_times(self, count: int, generator: torch.Generator) -> Tensor:
        """Diffusion times [B]: uniform or those of the sampler, and a share of them at the end."""
        drawn = torch.rand(count, generator=generator, device=self.device)
        if self.settings["times"] == "sampler":
            # the bridge asks at the start of each step, the published code at its end
            ends = step_times(self.sde.end_time, BRIDGE_END, self.sampler.N + 1, self.sampler.schedule)
            asked = ends[1:] if self.sampler.published_bridge else ends[:-1]
            t = torch.tensor(asked, device=self.device)[(drawn * len(asked)).long()]
        else:
            t = drawn * (self.sde.end_time - self.t_eps) + self.t_eps
        if share := self.settings["end_share"]:
            at_end = torch.rand(count, generator=generator, device=self.device) < share
            t = torch.where(at_end, self.sde.end_time, t)
        return t

    def _add_waveform_losses(self, loss: Tensor, estimate: Tensor, clean: Tensor) -> Tensor:
        """[B]: plus weighted L1, SI-SDR and PESQ of the waveforms [B, N], Richter et al. 2024, Eq. (13)."""
        waveform = self.transform.inverse(estimate, clean.shape[-1])
        loss = loss + self.settings["l1_weight"] * losses.waveform_l1(waveform, clean)
        if self.settings["si_sdr_weight"]:
            loss = loss + self.settings["si_sdr_weight"] * losses.negative_si_sdr(waveform, clean)
        for pesq_loss in self._pesq_loss:
            distance = pesq_loss.to(self.device)(clean, waveform)
            loss = loss + self.settings["pesq_weight"] * distance.to(loss.dtype)
        return loss

    # ---- validation loss, with averaged weights ----

    def on_validation_epoch_start(self) -> None:
        self._validation_weights = self.averaged_weights()
        self._validation_weights.__enter__()
        self._fit_familiarity()

    def _fit_familiarity(self) -> None:
        """Where the training references lie, as the averaged encoder maps them; for the adaptive guidance scale."""
        datamodule = getattr(self.trainer, "datamodule", None)
        if self.encoder is None or datamodule is None:
            return
        if not self._training_references:
            references = (datamodule.train[key]["reference"] for key in range(adaptive.NUM_REFERENCES))
            self._training_references = [reference for reference in references if len(reference)]
        self.familiarity = adaptive.fit_training_references(self.encode, self._training_references, self.device)

    def on_validation_epoch_end(self) -> None:
        self._validation_weights.__exit__(None, None, None)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss with the matched, the null and a mismatched reference; the same times and noise for all three."""

        def mean_loss(condition: Condition | None) -> Tensor:
            return self.loss(batch, condition, self._generator(2**40, batch_idx, self.global_rank))[0].mean()

        size = len(batch["clean"])
        condition = self.encode(batch["reference"], batch["reference_length"])
        matched = mean_loss(condition)
        finite = bool(torch.isfinite(matched))
        if not self.trainer.strategy.reduce_boolean_decision(finite):  # all processes stop together
            raise Diverged(f"the validation loss after step {self.global_step} is not finite")
        self.log("valid_loss", matched, on_epoch=True, sync_dist=True, prog_bar=True, batch_size=size)
        if condition is None or self.null is None:
            return
        other = mismatched(batch)
        gap = mean_loss(self.encode(other["reference"], other["reference_length"])) - matched
        self.log("cond_gap", gap, on_epoch=True, sync_dist=True, batch_size=size)
        if self.cond_drop_prob > 0:
            loss = mean_loss(self.null(condition))
            self.log("uncond/valid_loss", loss, on_epoch=True, sync_dist=True, batch_size=size)

    def averaged_weights(self) -> AbstractContextManager[None]:
        """A context in which the averaged weights are in use (where there are any)."""
        return nullcontext() if self.average is None else self.average.swapped_into(self)

    # ---- optimiser, averaged weights, logging ----

    def configure_optimizers(self) -> OptimizerLRScheduler:
        assert self.optimisation is not None
        pretrained = [] if self.encoder is None else self.encoder.pretrained_parameters()
        return adam(self.optimisation, self.parameters(), pretrained)

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        if self.average is not None:
            self.average.update(self)

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Log the norm of the gradient, and shorten it to `gradient_clip_val`. The step's one wait for the device."""
        gradients = {p: p.grad for p in self.parameters() if p.grad is not None}
        norm = torch.nn.utils.get_total_norm(gradients.values())
        if not torch.isfinite(norm):  # nor is the loss, or soon the weights: stop before the update
            raise Diverged(f"the gradient of step {self.global_step + 1} is not finite")
        self.log("grad_norm", norm)
        if gradient_clip_val:
            torch.nn.utils.clip_grads_with_norm_(gradients, gradient_clip_val, norm)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["model_settings"] = self.settings
        checkpoint["encoder_identity"] = None if self.encoder is None else self.encoder.identity
        if self.average is not None:
            checkpoint["average"] = self.average.state_dict()
        if self.familiarity is not None:
            checkpoint["familiarity"] = self.familiarity.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.average is not None:
            self.average.load_state_dict(checkpoint["average"])
        if self.optimisation is not None and "optimizer_states" in checkpoint:
            adopt_rates(checkpoint, self.optimisation)
        if "familiarity" in checkpoint:
            self.familiarity = Familiarity.from_state(checkpoint["familiarity"])

    def _log_training(self, loss: Tensor, t: Tensor, batch: Batch) -> None:
        """Loss, loss by diffusion time, and the share of references that became the null."""
        size = len(loss)
        self.log("train_loss", loss.mean(), prog_bar=True, batch_size=size)
        if self.encoder is not None:
            self.log("null_references", (batch["reference_length"] == 0).float().mean(), batch_size=size)
        bins = (t.detach() * TIME_BINS).long().clamp_max(TIME_BINS - 1)
        self._time_bins.index_add_(1, bins, torch.stack([loss.detach().float(), torch.ones_like(t)]))

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Log the loss by diffusion time of the last `LOG_EVERY` steps, all their accumulated batches counted."""
        if (self.global_step + 1) % LOG_EVERY == 0:
            for i, (total, count) in enumerate(self._time_bins.T.tolist()):
                if count:
                    self.log(f"train_loss_by_t/{i / TIME_BINS:.1f}-{(i + 1) / TIME_BINS:.1f}", total / count)
            self._time_bins.zero_()

    def _generator(self, *key: int) -> torch.Generator:
        """Randomness as a function of the run's seed and `key` alone, so that a resumed run repeats it."""
        seed = self.optimisation.seed if self.optimisation is not None else 0
        state = np.random.SeedSequence((seed, *key)).generate_state(1, np.uint64)[0]
        return torch.Generator(self.device).manual_seed(int(state) >> 1)


def _count_by_part(names: Iterable[str]) -> str:
    """Names of weights → e.g. "12 of encoder, 3 of backbone"."""
    parts = Counter(name.partition(".")[0] for name in names)
    return ", ".join(f"{count} of {part}" for part, count in sorted(parts.items())) or "none"
