"""Synthetic noise: small pure functions `(num_samples, sample_rate, rng) -> float32 [N]`, all of one RMS level.

Stationary: `white`, `pink`, `brown`, `hum`, `resonances`, `pulse_train`. Changing over time: `siren`, `pulses`,
`modulated`, `chirps`, and with vibrato `drone` and `warble`. Every kind has any length; babble is in `talkers`, for it
needs speech. Each docstring names the parameters that are drawn per call; the files of the embedded corpus come from
these draws. The level is a common RMS, not a common peak: `pulses` may peak at fifteen times its RMS.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import scipy  # its parts load when they are used
from numpy.typing import NDArray

Waveform = NDArray[np.float32]
NoiseFunction = Callable[[int, int, np.random.Generator], Waveform]

RMS = 0.05
LOWEST_HZ = 40.0  # coloured noise is flat below: steeper rumble would own the level without being audible


def with_rms(signal: NDArray[np.floating], rms: float = RMS) -> Waveform:
    """Scale `signal [N]` to the given RMS; silence stays silence. Returns float32 [N]."""
    level = float(np.sqrt(np.mean(np.square(signal, dtype=np.float64)))) if signal.size else 0.0
    return (signal * (rms / level if level > 0 else 0.0)).astype(np.float32)


def coloured(num_samples: int, sample_rate: int, rng: np.random.Generator, slope_db_per_octave: float) -> Waveform:
    """Gaussian noise [N] whose power falls by `slope_db_per_octave` above 40 Hz (shaped in the frequency domain)."""
    spectrum = np.fft.rfft(rng.standard_normal(num_samples))
    octaves = np.log2(np.maximum(np.fft.rfftfreq(num_samples, 1 / sample_rate), LOWEST_HZ) / LOWEST_HZ)
    spectrum *= 10 ** (slope_db_per_octave * octaves / 20)
    spectrum[0] = 0  # no DC
    return with_rms(np.fft.irfft(spectrum, num_samples))


def white(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Waveform:
    """Gaussian noise [N], 0 dB per octave: hiss. Nothing but the samples is drawn."""
    return coloured(num_samples, sample_rate, rng, 0.0)


def pink(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Waveform:
    """Gaussian noise [N], -3.01 dB per octave (1/f): rain, ventilation. Nothing but the samples is drawn."""
    return coloured(num_samples, sample_rate, rng, -10 * np.log10(2))


def brown(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Waveform:
    """Gaussian noise [N], -6.02 dB per octave (1/f^2): rumble, car cabin. Nothing but the samples is drawn."""
    return coloured(num_samples, sample_rate, rng, -20 * np.log10(2))


def hum(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Waveform:
    """A steady harmonic tone [N] over a pink floor 20 dB below: mains, motors, transformers.

    Drawn: fundamental 45-130 Hz; 10-40 harmonics, falling as 1/k^p with p in 0.3-1.2 and +-6 dB each; phases; a slow
    swell of up to 20 % at 0.2-1 Hz.
    """
    return _hum(np.arange(num_samples) / sample_rate, sample_rate, rng)


def drone(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Waveform:
    """`hum` with vibrato [N]: engines and fans that do not run evenly. Drawn: as for `hum` and `vibrato`."""
    return _hum(np.cumsum(vibrato(num_samples, sample_rate, rng)) / sample_rate, sample_rate, rng)


def vibrato(num_samples: int, sample_rate: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Factors [N] on a pitch, around 1. Drawn: rate 3-9 Hz, depth 0.2-1.5 semitones to either side, phase."""
    rate, semitones = rng.uniform(3, 9), rng.uniform(0.2, 1.5)
    time = np.arange(num_samples) / sample_rate
    return 2 ** (semitones / 12 * np.sin(2 * np.pi * rate * time + rng.uniform(0, 2 * np.pi)))


def _hum(time: NDArray[np.float64], sample_rate: int, rng: np.random.Generator) -> Waveform:
    """`hum` [N] at the points in `time` [N], in seconds; time that wavers makes the pitch waver."""
    num_samples = len(time)
    fundamental, decay = rng.uniform(45, 130), rng.uniform(0.3, 1.2)
    orders = np.arange(1, rng.integers(10, 41))
    orders = orders[orders * fundamental < 0.45 * sample_rate]
    gains = orders**-decay * 10 ** (rng.uniform(-6, 6, len(orders)) / 20)
    phases = rng.uniform(0, 2 * np.pi, len(orders))
    tone = np.zeros(num_samples)
    for order, gain, phase in zip(orders, gains, phases, strict=True):
        tone += gain * np.sin(2 * np.pi * fundamental * order * time + phase)
    swell = 1 + rng.uniform(0, 0.2) * np.sin(2 * np.pi * rng.uniform(0.2, 1.0) * time + rng.uniform(0, 2 * np.pi))
    return with_rms(with_rms(tone * swell) + 0.1 * pink(num_samples, sample_rate, rng))


def siren(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Waveform:
    """A tone gliding up and down [N] with three overtones: alarms, emergency vehicles.

    Drawn: lowest pitch 400-700 Hz; range 0.6-1.4 octaves; period 0.5-2 s; glide or two-tone (the sine is pushed
    towards a square by a factor of 1-8); overtones at -6 to -20 dB; start of the cycle.
    """
    return _siren(np.ones(num_samples), sample_rate, rng)


def warble(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Waveform:
    """`siren` with vibrato [N]. Drawn: as for `siren` and `vibrato`."""
    return _siren(vibrato(num_samples, sample_rate, rng), sample_rate, rng)


def _siren(pitch: NDArray[np.float64], sample_rate: int, rng: np.random.Generator) -> Waveform:
    """`siren` [N] whose pitch is multiplied by `pitch` [N]."""
    num_samples = len(pitch)
    time = np.arange(num_samples) / sample_rate
    lowest, octaves, period = rng.uniform(400, 700), rng.uniform(0.6, 1.4), rng.uniform(0.5, 2.0)
    push = rng.uniform(1, 8)
    cycle = np.tanh(push * np.sin(2 * np.pi * (time / period + rng.uniform()))) / np.tanh(push)
    angle = 2 * np.pi * np.cumsum(pitch * lowest * 2 ** (octaves * (cycle + 1) / 2)) / sample_rate
    gains = [1.0, *10 ** (rng.uniform(-20, -6, 3) / 20)]
    return with_rms(sum((g * np.sin((k + 1) * angle) for k, g in enumerate(gains)), start=np.zeros(num_samples)))


def pulses(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Waveform:
    """Ringing clicks at irregular times [N] over a faint pink floor 26 dB below: keyboards, cutlery, hammering.

    Drawn: rate 5-14 per second; one resonance 600-5000 Hz with decay 6-30 ms for the whole clip, +-20 % for each click;
    gain of each click +-4 dB; times.
    """
    rate, frequency, decay = rng.uniform(5, 14), rng.uniform(600, 5000), rng.uniform(0.006, 0.030)
    signal = np.zeros(num_samples)
    for _ in range(max(1, round(rate * num_samples / sample_rate))):
        start = int(rng.integers(num_samples))
        time = np.arange(min(num_samples - start, int(8 * decay * sample_rate))) / sample_rate
        click = np.exp(-time / (decay * rng.uniform(0.8, 1.2)))
        click *= np.sin(2 * np.pi * frequency * rng.uniform(0.8, 1.2) * time) + 0.3 * rng.standard_normal(len(time))
        signal[start : start + len(time)] += 10 ** (rng.uniform(-4, 4) / 20) * click
    return with_rms(with_rms(signal) + 0.05 * pink(num_samples, sample_rate, rng))


def pulse_train(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Waveform:
    """One ringing pulse repeated at nearly equal times [N] over a faint pink floor 26 dB below: clocks, drills, motors.

    Drawn: rate 2-60 per second (even in octaves); one resonance 200-4000 Hz with decay 3-20 ms; jitter of the times
    up to 3 % of the period; gain of each pulse +-1 dB; the first time.
    """
    period = 0.5 * 30 ** -rng.uniform()
    frequency, decay = rng.uniform(200, 4000), rng.uniform(0.003, 0.020)
    time = np.arange(int(8 * decay * sample_rate)) / sample_rate
    pulse = np.exp(-time / decay) * np.sin(2 * np.pi * frequency * time)
    number = int(num_samples / sample_rate / period) + 1
    jitter = rng.uniform(0, 0.03) * rng.uniform(-1, 1, number)
    starts = ((np.arange(number) + rng.uniform() + jitter) * period * sample_rate).astype(int)
    inside = (starts >= 0) & (starts < num_samples)
    impulses = np.zeros(num_samples)
    impulses[starts[inside]] = 10 ** (rng.uniform(-1, 1, number)[inside] / 20)
    if not inside.any():
        impulses[0] = 1.0
    signal = scipy.signal.oaconvolve(impulses, pulse)[:num_samples]
    return with_rms(with_rms(signal) + 0.05 * pink(num_samples, sample_rate, rng))


def modulated(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Waveform:
    """Noise whose level wanders irregularly [N]: gusts, waves, passing traffic, rustling.

    Drawn: spectral slope 0 to -6 dB per octave; speed of the level 0.7-6 Hz; its standard deviation 4-7 dB
    (never beyond two of them).
    """
    carrier = coloured(num_samples, sample_rate, rng, rng.uniform(-6, 0))
    speed, deviation_db = rng.uniform(0.7, 6.0), rng.uniform(4, 7)
    knots = rng.standard_normal(int(2 * speed * num_samples / sample_rate) + 2).clip(-2, 2)
    level = np.interp(np.linspace(0, len(knots) - 1, num_samples), np.arange(len(knots)), knots)
    return with_rms(carrier * 10 ** (deviation_db * level / 20))


def chirps(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Waveform:
    """Short gliding tones at irregular times [N] over a faint white floor 26 dB below: birds, beeps.

    Drawn: rate 3-7 per second; for each tone: length 60-300 ms, pitch 900-5000 Hz, glide +-0.7 octaves, gain +-5 dB.
    """
    signal = np.zeros(num_samples)
    for _ in range(max(1, round(rng.uniform(3, 7) * num_samples / sample_rate))):
        start, length = int(rng.integers(num_samples)), int(rng.uniform(0.06, 0.3) * sample_rate)
        pitch = rng.uniform(900, 5000) * 2 ** np.linspace(0, rng.uniform(-0.7, 0.7), length)
        tone = np.sin(2 * np.pi * np.cumsum(np.minimum(pitch, 0.45 * sample_rate)) / sample_rate)
        tone *= 10 ** (rng.uniform(-5, 5) / 20) * np.sin(np.pi * np.linspace(0, 1, length)) ** 0.5
        signal[start : start + length] += tone[: num_samples - start]
    return with_rms(with_rms(signal) + 0.05 * white(num_samples, sample_rate, rng))


def resonances(num_samples: int, sample_rate: int, rng: np.random.Generator) -> Waveform:
    """White noise through a few resonators [N]: fans, pipes, wind around a building.

    Drawn: 3-6 resonators with centres 150-5000 Hz (even in octaves), bandwidth 10-30 % of the centre, gain +-6 dB.
    """
    source = rng.standard_normal(num_samples)
    signal = 0.1 * with_rms(source)
    for _ in range(rng.integers(3, 7)):
        centre = 150 * 2 ** rng.uniform(0, np.log2(5000 / 150))
        radius = np.exp(-np.pi * centre * rng.uniform(0.1, 0.3) / sample_rate)
        poles = [1.0, -2 * radius * np.cos(2 * np.pi * centre / sample_rate), radius**2]
        signal += with_rms(scipy.signal.lfilter([1.0, 0.0, -1.0], poles, source)) * 10 ** (rng.uniform(-6, 6) / 20)
    return with_rms(signal)


SYNTHETIC_NOISES: dict[str, NoiseFunction] = {
    "white": white,
    "pink": pink,
    "brown": brown,
    "hum": hum,
    "drone": drone,
    "siren": siren,
    "warble": warble,
    "pulses": pulses,
    "pulse_train": pulse_train,
    "modulated": modulated,
    "chirps": chirps,
    "resonances": resonances,
}
