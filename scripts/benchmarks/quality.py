"""What the benchmark measures of learning: processor seconds of training until validation mixtures reach scores."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import numpy as np
import torch
from benchmarks.job import Job, measure_alone
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from sgmse.data.loaders import NoiseCondDataModule, collate
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.enhancement.signals import autocast
from sgmse.evaluation.metrics import MAIN, METRICS, SAMPLE_RATE, score
from sgmse.model.score_model import NoiseCondScoreModel
from sgmse.settings import cli
from sgmse.settings.config import CONFIGS, TRAIN_GROUPS, DataConfig, ModelConfig, TrainConfig
from sgmse.training.datamodule import build_datamodule
from sgmse.training.validation import enhance_item, to_score

FILES = 12  # validation mixtures
CHECKS = 24  # of the scores, equally spaced over the seconds
MARKS = {"pesq": (0.1, 0.2, 0.3, 0.4), "si_sdr": (2.0, 3.0, 4.0, 5.0)}  # above the unprocessed mixtures
# what is compared, as changes of configs/cpu.yaml; the last one is what it was before there was a light network
WAYS: dict[str, dict[str, Any]] = {
    "light, bridge": {},
    "light, bridge, bf16": {"precision": "bf16-mixed"},
    "light, one step": {"objective": "predictive"},
    "NCSN++, bridge": {
        **{"backbone": "ncsnpp_v2", "ch_mult": [1, 2, 2, 2], "hop_length": 128, "num_frames": 96, "batch_size": 8},
        **{"magnitude_weight": 0.0, "si_sdr_weight": 0.0, "pesq_weight": 0.0, "l1_weight": 0.1, "end_share": 0.0},
        **{"lr": 1e-3, "weight_decay": 0.0, "grad_clip": 1.0},
    },
}
Curve = list[tuple[float, dict[str, float]]]  # processor seconds of training, and the gains by metric


def show_quality(job: Job) -> None:
    """Train each way for `job.train_s` processor seconds and print when it reached each mark, beside the first way."""
    curves = {way: measure_alone(learn, replace(job, way=way)) for way in WAYS}
    for metric, marks in MARKS.items():
        for mark in marks:
            label = f"{METRICS[metric].title} +{mark:g}"
            first: float | None = None
            for place, (way, curve) in enumerate(curves.items()):
                seconds = next((seconds for seconds, gains in curve if gains[metric] >= mark), None)
                first = seconds if place == 0 else first
                ratio = f"{seconds / first:10.3g}" if seconds and first else f"{'–':>10}"
                shown = f"{seconds:10.4g}" if seconds else f"{f'> {job.train_s:g}':>10}"
                print(f"{label:24}{way:24}CPU s{shown}  ratio{ratio}", flush=True)


def learn(job: Job) -> Curve:
    """The gains of averaged weights over the unprocessed mixtures while a model of one way is trained, lr constant."""
    torch.set_num_threads(job.threads)
    torch.manual_seed(0)
    values = cli.parse(cli.make_parser(TRAIN_GROUPS, ""), [], CONFIGS / "cpu.yaml")[-1].values | WAYS[job.way]
    values |= {"encoder": "none", "speech_dir": [*job.speech_dir], "noise_dir": [*job.noise_dir], "lr_decay": "none"}
    config, data, train = (cli.take(group, values) for group in (ModelConfig, DataConfig, TrainConfig))
    model = NoiseCondScoreModel(config, SamplerSettings(N=1), train)
    module = build_datamodule(replace(data, num_eval_files=FILES), config, seed=0)
    training, spent, curve = _steps(model, module, train), 0.0, []
    for check in range(1, CHECKS + 1):
        while spent < check * job.train_s / CHECKS:
            spent += next(training)
        with model.averaged_weights():
            curve.append((spent, _gains(model, module)))
    return curve


def _steps(model: NoiseCondScoreModel, module: NoiseCondDataModule, train: TrainConfig) -> Iterator[float]:
    """Train step by step, without end; yields the processor seconds of each, loading included."""
    made: Any = model.configure_optimizers()
    optimiser, scheduler = made["optimizer"], made["lr_scheduler"]["scheduler"]
    for step in count():
        begin = time.process_time()
        keys = range(step * module.batch_size, (step + 1) * module.batch_size)
        batch = collate([module.train[key] for key in keys])
        optimiser.zero_grad()
        with autocast(model.device, train.precision):
            loss = model.loss(batch, None, torch.Generator().manual_seed(step))[0].mean()
        loss.backward()
        if train.grad_clip:
            clip_grad_norm_(model.parameters(), train.grad_clip)
        optimiser.step()
        scheduler.step()
        assert model.average is not None
        model.average.update(model)
        yield time.process_time() - begin


def _gains(model: NoiseCondScoreModel, module: NoiseCondDataModule) -> dict[str, float]:
    """Means over the validation mixtures of what the scores are above those of the mixtures."""
    rows = []
    for index in range(len(module.valid_files)):
        item = {name: value for name, value in module.valid_files[index].items() if isinstance(value, Tensor)}
        enhanced = enhance_item(model, item, index, {"": 1.0})[""]
        clean, *estimates = (to_score(model, waveform) for waveform in (item["clean"], enhanced, item["noisy"]))
        after, before = (score(clean, estimate, SAMPLE_RATE) for estimate in estimates)
        rows.append([after[name] - before[name] for name in MAIN])
    return dict(zip(MAIN, np.nanmean(rows, axis=0).tolist(), strict=True))
