"""What the benchmark measures of loading: audio that one process prepares per second."""

from __future__ import annotations

import resource
import time
from dataclasses import replace
from typing import Any

from benchmarks import measure
from benchmarks.job import Job
from benchmarks.measure import Row
from torch.utils.data import DataLoader

from sgmse.data.loaders import collate
from sgmse.settings.config import DataConfig, ModelConfig
from sgmse.training.datamodule import build_datamodule

WARM_UP_BATCHES, BATCHES_PER_ROUND = 4, 8  # the loader starts and decodes the noise files at first
VARIATION: dict[str, Any] = {
    "noise_augment": ["mix=0.5", "stretch=0.3", "pitch=0.3", "concatenate=0.3", "equalise=0.5", "gain=0.5"],
    **dict.fromkeys(("synthetic_share", "babble_share", "talker_share", "mismatched_share"), 0.2),
    "voice_speed": 0.2,
    "reference_gain_db": 3.0,
}


def loader(job: Job) -> list[Row]:
    """Seconds of audio that one loader process prepares per second, plain and with every variation on; its memory."""
    plain = DataConfig(speech_dir=[*job.speech_dir], noise_dir=[*job.noise_dir], num_frames=job.num_frames)
    note = ", ".join(job.speech_dir + job.noise_dir) or "embedded corpus"
    rows = []
    for kind, data in (("plain", plain), ("all variation", replace(plain, **VARIATION))):
        rows += [
            Row(f"{kind}, audio s per s", loading_rates(data, job.rounds), note),
            Row(f"{kind}, peak memory, MiB", [measure.peak_mib(resource.RUSAGE_CHILDREN)]),
        ]
    return rows


def loading_rates(data: DataConfig, rounds: int) -> list[float]:
    train = build_datamodule(data, ModelConfig(), seed=0).train
    keys = range((WARM_UP_BATCHES + rounds * BATCHES_PER_ROUND) * data.batch_size)
    batches = DataLoader(train, data.batch_size, sampler=keys, num_workers=1, collate_fn=collate)
    arrivals = [time.perf_counter() for _ in batches]
    batch_s = data.batch_size * train.settings.crop_length / train.sample_rate
    return measure.audio_rates(arrivals[WARM_UP_BATCHES - 1 :], batch_s, BATCHES_PER_ROUND)
