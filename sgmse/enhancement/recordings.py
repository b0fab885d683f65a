"""Writes what came out for one recording, at its own rate, length and format."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from sgmse.data import audio
from sgmse.enhancement.engine import Enhanced


def write_enhanced(enhanced: Enhanced, output: Path, rate: int, keep_highband: bool, mix: bool) -> float:
    """Write an enhanced file of a model at `rate` to `output`, at the rate and length of its input. Returns the peak.

    keep_highband: of files above `rate`, what the model does not hear is passed on unchanged.
    """
    info = audio.info(enhanced.item.noisy)
    if keep_highband and info.sample_rate > rate:
        original = np.atleast_2d(audio.read(enhanced.item.noisy, None, mono=mix))
        change = audio.resample(enhanced.waveform - enhanced.noisy, rate, info.sample_rate)
        waveform = original + audio.to_length(change, info.num_frames)
    else:
        waveform = audio.to_length(audio.resample(enhanced.waveform, rate, info.sample_rate), info.num_frames)
    one_or_all = waveform[0] if len(waveform) == 1 else waveform
    return audio.write(output, one_or_all, info.sample_rate, subtype_of(info, output))


def subtype_of(info: audio.AudioInfo, output: Path) -> str | None:
    """The sample format of the input; None, the usual one, where a compressed file becomes a WAV."""
    compressed = output.suffix.lower() == ".wav" and info.subtype.startswith(("MPEG", "VORBIS"))
    return None if compressed else info.subtype
