"""Augmentation of noise before mixing. What is done to a noise is done to its reference, with the same parameters.

Noise and reference are cut apart first, so no transform can carry a sample from one to the other.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import scipy  # its parts load when they are used
import torch
from torchaudio.functional import phase_vocoder

from sgmse.common.errors import UserError
from sgmse.data import audio
from sgmse.data.mixing import rms
from sgmse.data.noise import Cut, CutLengths

ALPHA = (0.3, 0.7)  # of a sum of two noises
TEMPO = 1.25  # up to this much faster or slower
SEMITONES = 4.0
EQUALISER_DB, EQUALISER_BANDS, EQUALISER_LOWEST_HZ = 8.0, 6, 60.0
SWELL_DB, SWELL_HZ = (2.0, 6.0), (0.1, 0.5)
_VOCODER_HOP_S, _FILTER_S = 0.016, 0.064
_SPARE = 64  # samples cut in excess, so that rounding within a change of tempo leaves enough


@dataclass(frozen=True)
class Augmentation:
    """The probability of each kind of transform; they are drawn independently."""

    mix: float = 0.0
    stretch: float = 0.0
    pitch: float = 0.0
    concatenate: float = 0.0
    equalise: float = 0.0
    gain: float = 0.0


KINDS = tuple(field.name for field in fields(Augmentation))


def parse(words: Sequence[str]) -> Augmentation:
    """Read "kind=probability" words. Raises `UserError` for what is no kind, or no probability."""
    found: dict[str, float] = {}
    for word in words:
        kind, _, value = word.partition("=")
        if kind not in KINDS:
            near = difflib.get_close_matches(kind, KINDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"use one of {', '.join(KINDS)}"
            raise UserError(f"--noise_augment {word}: there is no kind '{kind}'; {hint}")
        if kind in found:
            raise UserError(f"--noise_augment {word}: {kind} is given twice; leave one of them out")
        try:
            found[kind] = float(value)
        except ValueError:
            found[kind] = math.nan
        if not 0 <= found[kind] <= 1:
            raise UserError(f"--noise_augment {word}: a probability from 0 to 1 is needed, as in {kind}=0.3")
    return Augmentation(**found)


@dataclass(frozen=True)
class Transform:
    """The parameters drawn for one item; the defaults change nothing.

    shares: the parts of concatenated files. alpha: the weight of the first of two mixed noises. tempo: above 1 is
    faster. equaliser_db: gain per band [6]. swell: depth in dB, frequency in Hz and phase of a slow change of level.
    """

    shares: tuple[float, ...] = ()
    alpha: float | None = None
    tempo: float = 1.0
    semitones: float = 0.0
    equaliser_db: tuple[float, ...] = ()
    swell: tuple[float, float, float] | None = None

    def source(self, lengths: CutLengths) -> CutLengths:
        """What has to be cut for these `lengths` to come out."""
        if self.tempo == 1 and self.semitones == 0:
            return lengths
        longer = lengths.scale(self.tempo)
        return CutLengths(longer.length + _SPARE, longer.min_s, longer.max_s)

    def __call__(self, cut: Cut, length: int, sample_rate: int) -> Cut:
        """`cut` (of `source` length) transformed: reference [M'], noise [length], at the level it had.

        Tempo and pitch, equaliser and swell; `shares` and `alpha` need other files, see `mixtures`.
        """
        noise = self._apply(cut.noise, sample_rate)[:length]
        restored = np.float32(rms(cut.noise) / rms(noise))
        reference = self._apply(cut.reference, sample_rate) if len(cut.reference) else cut.reference
        return cut._replace(reference=restored * reference, noise=restored * noise)

    def _apply(self, waveform: np.ndarray, sample_rate: int) -> np.ndarray:
        if self.tempo != 1 or self.semitones != 0:
            waveform = retime(waveform, sample_rate, self.tempo, self.semitones)
        if self.equaliser_db:
            waveform = equalise(waveform, sample_rate, self.equaliser_db)
        if self.swell is not None:
            waveform = swell(waveform, sample_rate, *self.swell)
        return waveform


def draw(augmentation: Augmentation, rng: np.random.Generator) -> Transform:
    """A transform. Each kind has its own draws, made whether or not they are used: kinds do not disturb each other."""
    happens = dict(zip(KINDS, rng.random(len(KINDS)) < np.array([*asdict(augmentation).values()]), strict=True))
    weights = rng.uniform(0.5, 1.5, 3)[: 2 + int(rng.integers(2))]
    alpha, tempo = rng.uniform(*ALPHA), TEMPO ** rng.uniform(-1, 1)
    semitones = rng.uniform(-SEMITONES, SEMITONES)
    bands_db = rng.uniform(-EQUALISER_DB, EQUALISER_DB, EQUALISER_BANDS)
    swell = (rng.uniform(*SWELL_DB), rng.uniform(*SWELL_HZ), rng.uniform(0, 2 * np.pi))
    return Transform(
        shares=tuple(weights / weights.sum()) if happens["concatenate"] else (),
        alpha=alpha if happens["mix"] else None,
        tempo=tempo if happens["stretch"] else 1.0,
        semitones=semitones if happens["pitch"] else 0.0,
        equaliser_db=tuple(bands_db) if happens["equalise"] else (),
        swell=swell if happens["gain"] else None,
    )


def blend(first: Cut, second: Cut, alpha: float) -> Cut:
    """alpha · first + (1 − alpha) · second, both brought to the level of the first; references [M] alike."""
    a, b = np.float32(alpha), np.float32((1 - alpha) * rms(first.noise) / rms(second.noise))
    reference = a * first.reference + b * second.reference
    noise, files = a * first.noise + b * second.noise, first.files + second.files
    return Cut(reference, noise, first.looped or second.looped, files=files)


def retime(waveform: np.ndarray, sample_rate: int, tempo: float, semitones: float) -> np.ndarray:
    """`waveform` [N] played `tempo` times as fast with its pitch moved by `semitones`. Returns [about N / tempo].

    A phase vocoder changes the duration, resampling then moves pitch and duration together.
    """
    pitch = 2 ** (semitones / 12)
    hop = round(_VOCODER_HOP_S * sample_rate)
    hann = torch.hann_window(4 * hop)
    spectrum = torch.stft(
        torch.from_numpy(waveform.copy()), 4 * hop, hop, window=hann, pad_mode="constant", return_complex=True
    )
    advance = torch.linspace(0, math.pi * hop, 2 * hop + 1)[:, None]
    stretched = phase_vocoder(spectrum, tempo / pitch, advance)
    slow = torch.istft(stretched, 4 * hop, hop, window=hann, length=round(len(waveform) * pitch / tempo))
    return audio.resample(slow.numpy(), round(pitch * sample_rate), sample_rate)


def equalise(waveform: np.ndarray, sample_rate: int, gains_db: Sequence[float]) -> np.ndarray:
    """`waveform` [N] through a linear-phase filter without delay; gains at frequencies even in octaves up to Nyquist.

    Between them the gain in dB is linear over octaves; below the lowest, 60 Hz, it stays the same.
    """
    bands = np.geomspace(EQUALISER_LOWEST_HZ, sample_rate / 2, len(gains_db))
    grid = np.concatenate([[0.0], np.geomspace(EQUALISER_LOWEST_HZ, sample_rate / 2, 64)])
    gain_db = np.interp(np.log(np.maximum(grid, EQUALISER_LOWEST_HZ)), np.log(bands), gains_db)
    half = round(_FILTER_S * sample_rate / 2)
    grid[-1] = sample_rate / 2  # exactly, which a geometric series may miss
    taps = scipy.signal.firwin2(2 * half + 1, grid, 10 ** (gain_db / 20), fs=sample_rate).astype(np.float32)
    return scipy.signal.oaconvolve(np.pad(waveform, half, mode="reflect"), taps, mode="valid")


def swell(waveform: np.ndarray, sample_rate: int, depth_db: float, frequency: float, phase: float) -> np.ndarray:
    """`waveform` [N] whose level moves slowly by up to `depth_db` to either side, as a sine over time."""
    time = np.arange(len(waveform), dtype=np.float32) / np.float32(sample_rate)
    level_db = depth_db * np.sin(2 * np.pi * frequency * time + phase)
    return (waveform * 10 ** (level_db / 20)).astype(np.float32)


def reverberate(speech: np.ndarray, impulse_response: np.ndarray) -> np.ndarray:
    """`speech` [N] in a room: not delayed, its level kept. Returns [N]."""
    direct = int(np.argmax(np.abs(impulse_response)))
    wet = scipy.signal.fftconvolve(speech, impulse_response)[direct : direct + len(speech)].astype(np.float32)
    return wet * np.float32(rms(speech) / rms(wet)) if rms(wet) > 0 else speech
