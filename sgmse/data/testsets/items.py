"""One item of a test set: mixtures of a stated signal-to-noise ratio whose noise may change. Waveforms are mono [N]."""

from __future__ import annotations

import numpy as np
import scipy  # its parts load when they are used

from sgmse.data.mixing import FADE_S, crossfade, loop_crossfade, rms
from sgmse.data.noise import Cut
from sgmse.data.references import GUARD_S, MAX_SHARE, MIXTURE_FLOOR_DB, has_energy

FRAME_S = 0.01
GATE_DB = -60.0  # below the loudest frame: only digital silence and the fade-outs into it are that faint
ACTIVE_DB = -35.0  # below the loudest frame: fainter, it is a pause of the speech
REFERENCE_FLOOR_DB = -20.0  # below the noise of its mixture: fainter, it tells of the room between two sounds
RUMBLE_HZ = 30.0  # in some published clips 90 % of the energy lies below, unheard, and would make up the whole SNR
SWITCH_SHARE = (0.35, 0.65)  # where in the file `concat` changes its noise
RAMP_DB = 15.0
EVENT_DB = 10.0  # of a burst over the bed
EVENT_S = (0.15, 0.6)
EVENTS = (2, 4)
_EVENT_FADE_S = 0.005
PEAK = 0.99
_TRIES = 20


# Noise [N] of one item, made of unit-level parts, and its timeline: "0.00-1.32 dog;1.32-2.60 rain".
Noise = tuple[np.ndarray, str]


def sounding_rms(waveform: np.ndarray, sample_rate: int) -> float:
    """RMS of `waveform` [N] over its 10 ms frames that sound; 0 where all is silent.

    A frame sounds when its RMS is at most 60 dB below that of the loudest frame, so that the factor by which a noise is
    scaled changes nothing.
    """
    starts = np.arange(0, len(waveform), round(FRAME_S * sample_rate))
    if not len(starts):
        return 0.0
    energy = np.add.reduceat(np.square(waveform, dtype=np.float64), starts)
    count = np.diff(np.append(starts, len(waveform)))
    power = energy / count
    sounds = power >= power.max() * 10 ** (GATE_DB / 10)
    return float(np.sqrt(energy[sounds].sum() / count[sounds].sum()))


def find_densest(speech: np.ndarray, length: int, sample_rate: int) -> tuple[int, float]:
    """Where the stretch of `length` samples with the fewest pauses begins, and the share of its frames that are active.

    A frame of 10 ms is active when its RMS is at most 35 dB below that of the loudest frame. A `speech` [N] that is
    shorter has no such stretch: 0, 0.
    """
    frame = round(FRAME_S * sample_rate)
    count = length // frame
    frames = np.sqrt(
        np.square(speech[: len(speech) // frame * frame].reshape(-1, frame), dtype=np.float64).mean(axis=1)
    )
    if len(frames) < count or not frames.any():
        return 0, 0.0
    active = np.concatenate([[0], np.cumsum(frames > frames.max() * 10 ** (ACTIVE_DB / 20))])
    shares = (active[count:] - active[:-count]) / count
    best = int(np.argmax(shares))
    return min(best * frame, len(speech) - length), float(shares[best])


def without_rumble(noise: np.ndarray, sample_rate: int) -> np.ndarray:
    """`noise` [K] without offset and infrasound (Butterworth high-pass at 30 Hz, zero phase); too short: as it is."""
    if len(noise) < round(1 / RUMBLE_HZ * sample_rate):
        return noise
    sections = scipy.signal.butter(2, RUMBLE_HZ, "highpass", fs=sample_rate, output="sos")
    return scipy.signal.sosfiltfilt(sections, noise.astype(np.float64)).astype(np.float32)


def cut(
    clip: np.ndarray, length: int, sample_rate: int, rng: np.random.Generator, min_s: float, max_s: float
) -> Cut | None:
    """Take a reference from `clip` [K] and, 10 ms beside it, noise [length], looped where the clip is too short.

    Both are scaled by the factor that brings the noise to a level of 1. None when the clip is too short for a
    reference of `min_s`, or no cut found leaves sound on both sides.
    """
    clip_rms, guard = rms(clip), round(GUARD_S * sample_rate)
    shortest, longest = round(min_s * sample_rate), round(min(max_s * sample_rate, MAX_SHARE * len(clip)))
    for _ in range(_TRIES if longest >= shortest > 0 else 0):
        taken = int(rng.integers(shortest, longest + 1))
        rest = min(length, len(clip) - taken - guard)
        begin = int(rng.integers(len(clip) - taken - guard - rest + 1))
        reference_start, noise_start = begin, begin + taken + guard
        if rng.random() < 0.5:
            reference_start, noise_start = begin + rest + guard, begin
        reference = clip[reference_start : reference_start + taken]
        noise = loop_crossfade(clip[noise_start : noise_start + rest], length, sample_rate)
        level = sounding_rms(noise, sample_rate)
        if has_energy(noise, clip_rms, MIXTURE_FLOOR_DB) and has_energy(reference, level, REFERENCE_FLOOR_DB):
            unit = np.float32(1 / level)
            return Cut(unit * reference, unit * noise, rest < length, reference_start, noise_start)
    return None


def concat_lengths(length: int, sample_rate: int, rng: np.random.Generator) -> tuple[int, int]:
    """Lengths of two noises that, cross-faded, fill `length` and change at 35-65 % of it."""
    first = round(rng.uniform(*SWITCH_SHARE) * length)
    return first, length - first + round(FADE_S * sample_rate)


def steady(noise: np.ndarray, kind: str, sample_rate: int) -> Noise:
    """One noise all the time."""
    return noise, _span(0, len(noise), sample_rate, kind)


def concat(parts: list[np.ndarray], kinds: list[str], sample_rate: int) -> Noise:
    """Two noises of equal level, one after the other over a cross-fade of 20 ms."""
    first, second = parts
    whole = crossfade(first, second, sample_rate)
    switch = len(first) - round(FADE_S * sample_rate) // 2
    spans = (_span(0, switch, sample_rate, kinds[0]), _span(switch, len(whole), sample_rate, kinds[1]))
    return whole, ";".join(spans)


def ramp(noise: np.ndarray, kind: str, sample_rate: int, rng: np.random.Generator) -> Noise:
    """A level that rises or falls by 15 dB, linearly in dB, over the file."""
    end_db = RAMP_DB / 2 * (1 if rng.random() < 0.5 else -1)
    gain = 10 ** (np.linspace(-end_db, end_db, len(noise), dtype=np.float32) / 20)
    detail = f"{kind} {-end_db:+.1f} to {end_db:+.1f} dB"
    return noise * gain, _span(0, len(noise), sample_rate, detail)


def event_lengths(length: int, sample_rate: int, rng: np.random.Generator) -> list[int]:
    """Lengths of the bursts, 2-4 of 0.15-0.6 s, none longer than three quarters of its share of `length`."""
    count = int(rng.integers(EVENTS[0], EVENTS[1] + 1))
    longest = round(0.75 * length / count)
    return [min(longest, round(rng.uniform(*EVENT_S) * sample_rate)) for _ in range(count)]


def events(
    bed: np.ndarray, sound: np.ndarray, lengths: list[int], kinds: list[str], sample_rate: int, rng: np.random.Generator
) -> Noise:
    """Bursts, each 10 dB above the steady `bed` [N] and at a random place of its share of the file.

    They are consecutive stretches of `sound` [sum of lengths]; a stretch that is silent gives way to the loudest one.
    """
    whole, share = bed.copy(), len(bed) // len(lengths)
    stretches = np.split(sound, np.cumsum(lengths)[:-1])
    loudest = max(stretches, key=rms)
    spans = [_span(0, len(bed), sample_rate, kinds[0])]
    for number, stretch in enumerate(stretches):
        burst = (stretch if has_energy(stretch, rms(loudest)) else loudest)[:share]
        fade = np.minimum(1, np.arange(1, len(burst) + 1, dtype=np.float32) / round(_EVENT_FADE_S * sample_rate))
        burst = burst * fade * fade[::-1]
        gain = np.float32(10 ** (EVENT_DB / 20) * sounding_rms(bed, sample_rate) / sounding_rms(burst, sample_rate))
        start = number * share + int(rng.integers(share - len(burst) + 1))
        whole[start : start + len(burst)] += gain * burst
        spans.append(_span(start, start + len(burst), sample_rate, f"{kinds[1]} {EVENT_DB:+.0f} dB"))
    return whole, ";".join(spans)


def join(references: list[np.ndarray], sample_rate: int) -> np.ndarray:
    """References of the parts of an item, one after the other over cross-fades."""
    joined = references[0]
    for reference in references[1:]:
        joined = crossfade(joined, reference, sample_rate)
    return joined


def mix(
    clean: np.ndarray, noise: np.ndarray, snr_db: float, sample_rate: int, reference: np.ndarray
) -> tuple[np.ndarray, np.ndarray, float]:
    """Scale unit-level `noise` [N] to `snr_db` under `clean` [N].

    The level of the speech is that of the whole file, that of the noise is gated (`sounding_rms`). Speech keeps its
    level unless a signal, its `reference` [M] included, would exceed 0.99; then one factor attenuates all of them.

    Returns (clean [N], noise [N], gain): every unit-level reference needs that gain to stand beside that noise.
    """
    gain = rms(clean) / sounding_rms(noise, sample_rate) * 10 ** (-snr_db / 20)
    peaks = [np.abs(clean).max(), gain * np.abs(noise).max(), np.abs(clean + gain * noise).max()]
    scale = min(1.0, PEAK / max(*peaks, gain * np.abs(reference).max()))
    gain *= scale
    return np.float32(scale) * clean, np.float32(gain) * noise, gain


def _span(start: int, end: int, sample_rate: int, label: str) -> str:
    return f"{start / sample_rate:.2f}-{end / sample_rate:.2f} {label}"
