"""The small corpus that comes with the code: synthetic voices, synthetic noise, a fixed test set.

`scripts/make_corpus.py` makes it. One seed and one version of espeak-ng and flite give the same files.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path

import numpy as np
import soundfile
import soxr
from numpy.typing import NDArray

from sgmse.common.errors import UserError
from sgmse.common.files import write_rows
from sgmse.data import corpora
from sgmse.data.noise.synthetic import SYNTHETIC_NOISES, with_rms

EMBEDDED = corpora.embedded_dir()
RATE = 16000
FULL_SCALE = 32768

# No variant of espeak-ng (f1, m3, ...) and no flite voice appears in two splits. Numbers are clips per voice.
VOICES: dict[str, dict[str, int]] = {
    "train": {"flite-awb": 32, "flite-rms": 32}
    | {f"espeak-en-us-{variant}": 4 for variant in ("f1", "f3", "m1", "m4", "m6", "linda", "michael")}
    | {f"espeak-en-gb-{variant}": 4 for variant in ("f5", "m3", "m8", "robert", "steph", "andy")},
    "valid": {"flite-kal16": 6, "espeak-en-us-f4": 4, "espeak-en-gb-m5": 4},
    "test": {"flite-slt": 12, "espeak-en-us-f2": 4, "espeak-en-gb-m2": 4, "espeak-en-us-m7": 4},
}
SPEEDS = (0.88, 1.0, 1.12, 1.25)  # speed and pitch together: stands in for more speakers, training voices of flite only
SPEECH_SECONDS = {"train": (2.0, 4.0), "valid": (2.0, 4.0), "test": (2.0, 2.6)}

# Clips per type; a hyphen is a sum of two. `siren` and `resonances` are kept for the test set.
NOISES: dict[str, dict[str, int]] = {
    "train": {"white": 2, "pink": 2, "brown": 2, "hum": 3, "pulses": 3, "modulated": 3, "chirps": 3}
    | {"pink-pulses": 2, "hum-white": 2, "modulated-chirps": 2, "brown-modulated": 1, "hum-pulses": 1},
    "valid": {"pink": 1, "hum": 1, "modulated": 1, "chirps-white": 1, "pulses": 1},
}
TEST_KINDS = ("pink", "brown", "hum", "pulses", "modulated", "white-chirps", "siren", "resonances")
TEST_SNRS_DB = (0, 5, 10)
REFERENCE_SECONDS, GAP_SECONDS = 1.5, 0.25
PEAK = 0.9
# Zero low bits cost FLAC nothing. To stay below 8 MB, samples lie on grids coarser than 16 bit: speech with a rounding
# error at least this far below it, noise as fine as the budget allows (it may be rougher: its rounding error is noise).
SPEECH_TO_ROUNDING_DB = {"train": 40.0, "valid": 40.0, "test": 43.0}
NOISE_BITS_PER_SAMPLE = 4.0


def generator(seed: int, name: str) -> np.random.Generator:
    """A random generator of its own for each file, so that adding a file changes no other."""
    return np.random.default_rng((seed, zlib.crc32(name.encode())))


def speak(voice: str, sentence: str, pace: float, pitch: int) -> NDArray[np.float64]:
    """Speech [N] at 16 kHz. `pace` 1 is usual, more is faster; `pitch` 0-100 is obeyed by espeak-ng only."""
    engine, _, name = voice.partition("-")
    with tempfile.TemporaryDirectory() as folder:
        wav = str(Path(folder) / "speech.wav")
        if engine == "flite":
            command = ["flite", "-voice", name, "--setf", f"duration_stretch={1 / pace:.3f}", "-t", sentence, "-o", wav]
        else:
            variant = "+".join(name.rsplit("-", 1))
            command = ["espeak-ng", "-v", variant, "-p", str(pitch), "-s", str(round(165 * pace)), "-w", wav, sentence]
        subprocess.run(command, check=True, capture_output=True)
        speech, rate = soundfile.read(wav)
    return speech if rate == RATE else soxr.resample(speech, rate, RATE)


def trim(speech: NDArray[np.float64], floor_db: float = -40.0, margin_seconds: float = 0.04) -> NDArray[np.float64]:
    """Cut what lies more than 40 dB below the loudest 10 ms from both ends of `speech [N]`, but for a margin."""
    hop = RATE // 100
    levels = np.square(speech[: len(speech) // hop * hop]).reshape(-1, hop).mean(axis=1)
    loud = np.flatnonzero(levels > levels.max() * 10 ** (floor_db / 10))
    margin = int(margin_seconds * RATE)
    return speech[max(0, loud[0] * hop - margin) : (loud[-1] + 1) * hop + margin]


def make_speech(split: str, voice: str, sentence: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """One clip [N] with drawn pace, pitch and peak (-15 to -3 dBFS), its length within the split's range."""
    pitch, peak_db = int(rng.integers(35, 66)), rng.uniform(-15, -3)
    pace, speed = rng.uniform(0.9, 1.15), rng.choice(SPEEDS)
    speed = speed if split == "train" and voice.startswith("flite") else 1.0
    shortest, longest = SPEECH_SECONDS[split]
    for _ in range(8):
        speech = trim(soxr.resample(speak(voice, sentence, pace, pitch), RATE * speed, RATE))
        seconds = len(speech) / RATE
        if shortest <= seconds <= longest:
            break
        pace *= seconds / (0.5 * (shortest + longest))
    else:
        raise UserError(f"{voice} cannot say in {shortest}-{longest} s: '{sentence}'; choose another sentence")
    fade = np.minimum(1.0, np.arange(len(speech)) / (0.005 * RATE))
    speech = speech * fade * fade[::-1]
    return speech * 10 ** (peak_db / 20) / np.abs(speech).max()


def make_noise(kind: str, num_samples: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """Noise [N] of RMS 0.05; a kind with a hyphen sums two types, the second up to 6 dB softer or louder."""
    first, *second = kind.split("-")
    noise = SYNTHETIC_NOISES[first](num_samples, RATE, rng).astype(np.float64)
    for name in second:
        noise += 10 ** (rng.uniform(-6, 6) / 20) * SYNTHETIC_NOISES[name](num_samples, RATE, rng)
    return with_rms(noise).astype(np.float64)


def to_grid(signal: NDArray[np.float64], step: int) -> NDArray[np.int16]:
    """Round `signal [N]` in [-1, 1) to 16-bit integers that are multiples of `step`."""
    steps = FULL_SCALE // step
    return (np.round(signal * steps).clip(-steps, steps - 1) * step).astype(np.int16)


def faithful_step(signal: NDArray[np.float64], snr_db: float) -> int:
    """The coarsest grid, a power of two, whose rounding error (variance step^2 / 12) is `snr_db` below `signal [N]`."""
    error = FULL_SCALE * np.sqrt(np.mean(signal**2)) * 10 ** (-snr_db / 20)
    return 2 ** max(0, int(np.floor(np.log2(np.sqrt(12) * error))))


def affordable_step(signal: NDArray[np.float64], bits_per_sample: float) -> int:
    """The finest grid, a power of two, at which FLAC stores `signal [N]` within the budget."""
    for step in (1, 2, 4, 8, 16, 32, 64, 128):
        file = io.BytesIO()
        soundfile.write(file, to_grid(signal, step), RATE, format="FLAC", subtype="PCM_16", compression_level=1.0)
        if 8 * file.getbuffer().nbytes <= bits_per_sample * len(signal):
            break
    return step


def save(path: Path, samples: NDArray[np.int16]) -> None:
    """Write `samples [N]` as 16 kHz mono 16-bit FLAC."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, samples, RATE, format="FLAC", subtype="PCM_16", compression_level=1.0)


def read_sentences(split: str) -> list[str]:
    """The sentences of one split; no sentence is in two of them."""
    return (EMBEDDED / "sentences" / f"{split}.txt").read_text(encoding="utf-8").splitlines()


def write_speech(out: Path, split: str, seed: int) -> None:
    """Write speech/<split>/<voice>_<number>.flac."""
    texts = read_sentences(split)
    voices = [voice for voice, clips in VOICES[split].items() for _ in range(clips)]
    for number, voice in enumerate(voices):
        name = f"speech/{split}/{voice}_{number:03d}.flac"
        speech = make_speech(split, voice, texts[number % len(texts)], generator(seed, name))
        save(out / name, to_grid(speech, faithful_step(speech, SPEECH_TO_ROUNDING_DB[split])))


def write_noise(out: Path, split: str, seed: int) -> None:
    """Write noise/<split>/<type>_<number>.flac, 6-12 s each, at -36 to -20 dBFS."""
    for kind, clips in NOISES[split].items():
        for number in range(clips):
            name = f"noise/{split}/{kind}_{number:02d}.flac"
            rng = generator(seed, name)
            noise = make_noise(kind, int(rng.uniform(6, 12) * RATE), rng) * 10 ** (rng.uniform(-10, 6) / 20)
            noise *= min(1.0, PEAK / np.abs(noise).max())
            save(out / name, to_grid(noise, affordable_step(noise, NOISE_BITS_PER_SAMPLE)))


def make_test_item(
    speech: NDArray[np.float64], kind: str, snr_db: float, rng: np.random.Generator
) -> dict[str, NDArray[np.int16]]:
    """Clean, noise and noisy [N] and ref [M], on one grid: noisy equals clean plus noise exactly.

    Reference and mixture noise are cut from one clip, the reference first, then a gap. One factor scales all four.
    """
    reference, gap = int(REFERENCE_SECONDS * RATE), int(GAP_SECONDS * RATE)
    clip = make_noise(kind, reference + gap + len(speech), rng)
    ref, noise = clip[:reference], clip[reference + gap :]
    gain = np.sqrt(np.mean(speech**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    ref, noise = gain * ref, gain * noise
    loudest = max(float(np.abs(part).max()) for part in (speech, noise, ref, speech + noise))
    scale = min(1.0, 0.999 * PEAK / loudest)
    step = faithful_step(scale * speech, SPEECH_TO_ROUNDING_DB["test"])
    parts = {"clean": to_grid(scale * speech, step), "noise": to_grid(scale * noise, step)}
    return parts | {"noisy": parts["clean"] + parts["noise"], "ref": to_grid(scale * ref, step)}


def write_test(out: Path, seed: int) -> None:
    """Write test/{clean,noisy,ref,noise}/NNN.flac and test/manifest.csv: every kind once at every SNR."""
    natural, *others = VOICES["test"]
    rows = []
    for number, sentence in enumerate(read_sentences("test")):
        block, place = divmod(number, len(TEST_KINDS))
        name, kind, snr_db = f"{number:03d}", TEST_KINDS[place], TEST_SNRS_DB[block]
        voice = natural if (block + place) % 2 == 0 else others[(block + place // 2) % len(others)]
        rng = generator(seed, f"test/{name}")
        item = make_test_item(make_speech("test", voice, sentence, rng), kind, snr_db, rng)
        for part, samples in item.items():
            save(out / "test" / part / f"{name}.flac", samples)
        seconds = [f"{len(item[part]) / RATE:.3f}" for part in ("noisy", "ref")]
        rows.append([name, f"{voice}_{name}", f"{kind}_{name}", kind, snr_db, *seconds])
    columns = ("id", "speech", "noise", "kind", "snr_db", "seconds", "ref_seconds")
    write_rows(out / "test" / "manifest.csv", columns, [dict(zip(columns, row, strict=True)) for row in rows])


def make_corpus(out: Path, seed: int, replace: bool) -> None:
    """Write `out`/{speech,noise,test}.

    Raises `UserError` where the programs are not there, or another corpus would be mixed with the new one.
    """
    missing = [program for program in ("espeak-ng", "flite") if shutil.which(program) is None]
    if missing:
        raise UserError(f"cannot find {' and '.join(missing)}; install with: apt-get install -y {' '.join(missing)}")
    for folder in (out / name for name in ("speech", "noise", "test")):
        if folder.exists() and not replace:
            raise UserError(f"{folder} exists; name another --out, or give --replace to delete and remake it")
        shutil.rmtree(folder, ignore_errors=True)
    for split in ("train", "valid"):
        write_speech(out, split, seed)
        write_noise(out, split, seed)
    write_test(out, seed)
