"""Facts about the corpus that ships with the repository, and about the synthetic noise it is made of."""

from __future__ import annotations

import csv
import hashlib
import os
import subprocess
import sys
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray
from scipy.signal import correlate, welch

from sgmse.data.noise.synthetic import RMS, SYNTHETIC_NOISES

ROOT = Path(__file__).resolve().parents[1]

CORPUS = ROOT / "sgmse" / "data" / "embedded"
RATE = 16000
# Noise whose fine structure never repeats. Left out: `hum` and `siren` are periodic, so any stretch of them predicts
# any other up to a shift: their correlation is near 1 without a single shared sample.
NOISE_LIKE = {"white", "pink", "brown", "pulses", "modulated", "chirps", "resonances"}


@cache
def samples(path: Path) -> NDArray[np.int16]:
    """The integers [N] of one file."""
    return soundfile.read(path, dtype="int16")[0]


def files(folder: str) -> list[Path]:
    """The FLAC files of one folder of the corpus, at least one."""
    found = sorted((CORPUS / folder).glob("*.flac"))
    assert found, f"no files in {folder}"
    return found


def stems(paths: list[Path]) -> set[str]:
    """What stands before the number: the voice, or the type of noise."""
    return {path.stem.rsplit("_", 1)[0] for path in paths}


def manifest() -> list[dict[str, str]]:
    """The rows of the test manifest."""
    with open(CORPUS / "test" / "manifest.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def item(row: dict[str, str], part: str) -> NDArray[np.float64]:
    """One part (clean, noisy, noise, ref) [N] of a test mixture, in steps of 16 bit."""
    return samples(CORPUS / "test" / part / f"{row['id']}.flac").astype(np.float64)


def largest_correlation(short: NDArray[np.float64], long: NDArray[np.float64]) -> float:
    """The largest normalised correlation of `short [M]` with any stretch of `long [N]`, N >= M."""
    total = np.concatenate([[0.0], np.cumsum(long**2)])
    energies = total[len(short) :] - total[: -len(short)]
    return float(np.abs(correlate(long, short, mode="valid") / np.sqrt(energies * np.sum(short**2))).max())


def test_files_are_small_different_16_khz_mono_16_bit_and_neither_silent_nor_clipped() -> None:
    assert sum(path.stat().st_size for path in CORPUS.rglob("*") if path.is_file()) <= 8e6
    digests = set()
    for path in sorted(CORPUS.rglob("*.flac")):
        info = soundfile.info(path)
        assert (info.samplerate, info.channels, info.subtype) == (RATE, 1, "PCM_16"), path
        loudness = samples(path).astype(np.float64) / 32768
        assert np.sqrt(np.mean(loudness**2)) > 1e-3, f"{path} is silent"
        assert np.abs(loudness).max() <= 0.9, f"{path} is too loud"
        digest = hashlib.sha256(samples(path).tobytes()).hexdigest()
        assert digest not in digests, f"{path} occurs twice"
        digests.add(digest)


@pytest.mark.parametrize(
    ("folder", "minutes", "shortest", "longest"),
    [
        ("speech/train", 5.5, 2, 4),
        ("speech/valid", 0.6, 2, 4),
        ("noise/train", 3.7, 6, 12),
        ("noise/valid", 0.6, 6, 12),
    ],
)
def test_training_has_enough_clips_of_the_promised_length(
    folder: str, minutes: float, shortest: float, longest: float
) -> None:
    seconds = [len(samples(path)) / RATE for path in files(folder)]
    assert sum(seconds) >= 60 * minutes
    assert shortest <= min(seconds) <= max(seconds) <= longest


def test_no_two_splits_share_a_voice_a_timbre_of_espeak_or_a_sentence() -> None:
    voices = [stems(files("speech/train")), stems(files("speech/valid"))]
    voices.append({row["speech"].rsplit("_", 1)[0] for row in manifest()})
    timbres = [{voice.rsplit("-", 1)[1] for voice in split} for split in voices]
    texts = [(CORPUS / "sentences" / f"{split}.txt").read_text("utf-8") for split in ("train", "valid", "test")]
    sentences = [set(text.splitlines()) for text in texts]
    for splits in (voices, timbres, sentences):
        assert len(set.union(*splits)) == sum(map(len, splits))


def test_at_least_two_noise_types_are_kept_for_the_test_set() -> None:
    seen = {kind for name in stems(files("noise/train") + files("noise/valid")) for kind in name.split("-")}
    tested = {kind for row in manifest() for kind in row["kind"].split("-")}
    assert tested - seen == {"siren", "resonances"}
    assert tested & seen, "the test set has known types as well"


def test_the_manifest_names_exactly_the_test_files() -> None:
    rows = manifest()
    assert list(rows[0]) == ["id", "speech", "noise", "kind", "snr_db", "seconds", "ref_seconds"]
    for part in ("clean", "noisy", "noise", "ref"):
        assert [path.stem for path in files(f"test/{part}")] == [row["id"] for row in rows]
    for row in rows:
        assert len(item(row, "noisy")) / RATE == pytest.approx(float(row["seconds"]), abs=1e-3)
        assert len(item(row, "ref")) / RATE == pytest.approx(float(row["ref_seconds"]), abs=1e-3)
    levels = [row["snr_db"] for row in rows]
    assert [levels.count(snr) for snr in ("0", "5", "10")] == [8, 8, 8]


def test_mixtures_are_sums_at_their_ratio_with_disjoint_references_of_their_level() -> None:
    for row in manifest():
        clean, noise, noisy, reference = (item(row, part) for part in ("clean", "noise", "noisy", "ref"))
        assert np.abs(noisy - clean - noise).max() <= 1, row["id"]
        snr_db = 10 * np.log10(np.sum(clean**2) / np.sum(noise**2))
        assert snr_db == pytest.approx(float(row["snr_db"]), abs=0.3), row["id"]
        assert abs(20 * np.log10(np.std(reference) / np.std(noise))) < 6, row["id"]
        if set(row["kind"].split("-")) <= NOISE_LIKE:
            assert largest_correlation(reference, noise) < 0.5, row["id"]


@pytest.mark.parametrize(("name", "slope_db"), [("white", 0.0), ("pink", -3.01), ("brown", -6.02)])
def test_coloured_noise_falls_by_its_slope_per_octave(name: str, slope_db: float) -> None:
    noise = SYNTHETIC_NOISES[name](60 * RATE, RATE, np.random.default_rng(0))
    frequencies, power = welch(noise, RATE, nperseg=4096)
    edges = 100 * 60 ** np.linspace(0, 1, 13)  # 12 bands, equally wide in octaves, from 100 Hz to 6 kHz
    centres = np.log2(np.sqrt(edges[:-1] * edges[1:]))
    bands = [power[(frequencies >= low) & (frequencies < high)] for low, high in pairwise(edges)]
    levels = [np.mean(10 * np.log10(band)) for band in bands]
    assert np.polyfit(centres, levels, 1)[0] == pytest.approx(slope_db, abs=0.5)


@pytest.mark.parametrize("name", SYNTHETIC_NOISES)
def test_one_seed_gives_one_noise(name: str) -> None:
    first, again, other = (SYNTHETIC_NOISES[name](RATE, RATE, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", SYNTHETIC_NOISES)
@pytest.mark.parametrize("rate", [16000, 48000])
def test_synthetic_noise_has_the_common_level(name: str, rate: int) -> None:
    for seed in range(5):
        noise = SYNTHETIC_NOISES[name](2 * rate + 1, rate, np.random.default_rng(seed))
        assert noise.shape == (2 * rate + 1,)
        assert noise.dtype == np.float32
        assert np.sqrt(np.mean(noise**2)) == pytest.approx(RMS, rel=1e-3)


def test_a_missing_voice_program_is_named_in_one_sentence(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "make_corpus.py"), "--out", str(tmp_path)],
        env={**os.environ, "PATH": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 2
    assert "apt-get install -y espeak-ng flite" in result.stderr
    assert len(result.stderr.splitlines()) == 1
