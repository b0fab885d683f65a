"""The two commands called in this process, small checkpoints for them, and broken files."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from small_corpora import save
from tiny import tiny

from sgmse.common.errors import run
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.settings.config import DataConfig, ModelConfig, TrainConfig
from sgmse.training import run as runs

RATE = 16000
SECOND = np.random.default_rng(0).standard_normal(RATE).astype(np.float32) * 0.1
SIZE = "--nf 4 --ch_mult 1 1 --num_res_blocks 1 --frequency_fold 8 --num_frames 24 --batch_size 2 --num_workers 0"
TINY = f"{SIZE} --num_valid_items 2 --num_eval_files 1 --N 1 --device cpu --max_steps 1 --val_every_n_steps 1".split()


def refusal(
    main: Callable[[], None], capsys: pytest.CaptureFixture[str], *arguments: object, strict: bool = True
) -> str:
    """The one line on stderr with which a command refuses these arguments, without "error: ".

    strict: nothing else is on stderr, as where nothing has been done before.
    """
    capsys.readouterr()
    before = sys.argv
    sys.argv = ["command", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as stop:
            run(main)
    finally:
        sys.argv = before
    lines = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2, lines
    assert len(lines) == 1 or not strict, lines
    assert lines[-1].startswith("error: ")
    return lines[-1].removeprefix("error: ")


def call(main: Callable[[], None], capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command prints on stdout."""
    capsys.readouterr()
    before = sys.argv
    sys.argv = ["command", *map(str, arguments)]
    try:
        main()
    finally:
        sys.argv = before
    return capsys.readouterr().out


def saved_run(folder: Path, **settings: object) -> Path:
    """A run as training leaves it, after 4 steps of a tiny model that has learned nothing: its last.ckpt."""
    sampler, train = SamplerSettings(N=1), TrainConfig(max_steps=4, log_dir=str(folder.parent))
    model = tiny(train, sampler, **settings)
    content: dict[str, object] = {"state_dict": model.state_dict(), "optimizer_states": [], "global_step": 4}
    assert model.average is not None
    model.average.update(model)
    model.on_save_checkpoint(content)
    path = folder / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    torch.save(content, path)
    config = ModelConfig(**{name: model.settings[name] for name in ModelConfig.__dataclass_fields__})
    runs.save_settings(folder, config, sampler, DataConfig(), train)
    return path


def altered(ckpt: Path, to: Path, **changes: object) -> Path:
    """A copy of a checkpoint with other content under some names; None leaves a name out."""
    content = torch.load(ckpt, weights_only=True) | changes
    torch.save({name: value for name, value in content.items() if value is not None}, to)
    return to


def broken(path: Path, how: str) -> Path:
    """Put at `path` a file that is broken in some way, or that holds so many samples of white noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("not audio")
    elif how == "truncated":
        save(path, samples=SECOND, rate=RATE)
        path.write_bytes(path.read_bytes()[:20000])
    elif how == "nan":
        soundfile.write(path, np.full(RATE, np.nan, dtype=np.float32), RATE, subtype="FLOAT")
    elif how == "silent":
        save(path, samples=np.zeros(RATE), rate=RATE)
    else:
        save(path, samples=SECOND[: int(how)], rate=RATE)
    return path
