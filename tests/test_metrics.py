"""PESQ, ESTOI and the energy ratios; what is listed in `METRICS` is scored."""

from pathlib import Path

import numpy as np
import pesq as pesq_library
import pystoi
import pytest

import sgmse
from sgmse.data import audio, listing
from sgmse.evaluation import metrics

TEST_SET = Path(sgmse.__file__).parent / "data" / "embedded" / "test"
RATE = metrics.SAMPLE_RATE


def pair() -> tuple[np.ndarray, np.ndarray]:
    """A clean and a noisy waveform [N] of the embedded test set."""
    name = listing.find(TEST_SET / "clean")[0].name
    return audio.read(TEST_SET / "clean" / name, RATE), audio.read(TEST_SET / "noisy" / name, RATE)


def orthogonal(number: int) -> np.ndarray:
    """Random signals [number, N] of unit energy, each orthogonal to the others."""
    return np.linalg.qr(np.random.default_rng(0).normal(size=(4000, number)))[0].T


def test_pesq_and_estoi_are_those_of_the_libraries() -> None:
    clean, noisy = pair()
    scores = metrics.score(clean, noisy, RATE)
    assert scores["pesq"] == pytest.approx(pesq_library.pesq(RATE, clean, noisy, "wb"), abs=1e-6)
    assert scores["estoi"] == pytest.approx(pystoi.stoi(clean, noisy, RATE, extended=True), abs=1e-6)
    assert scores["reason"] == ""
    assert np.isnan([scores["si_sir"], scores["si_sar"]]).all()


def test_scoring_is_repeatable_and_leaves_the_global_generator_alone() -> None:
    clean, noisy = pair()
    np.random.seed(1)
    first, draw = metrics.score(clean, noisy, RATE), np.random.normal()
    np.random.seed(1)
    assert np.random.normal() == draw
    assert repr(metrics.score(clean, noisy, RATE)) == repr(first)


def test_si_sdr_ignores_the_scale_of_both_signals() -> None:
    clean, noisy = pair()
    expected = metrics.si_sdr(clean, noisy)
    for scale in (0.01, -3.0, 1000.0):
        assert metrics.si_sdr(clean, scale * noisy) == pytest.approx(expected, abs=1e-4)
        assert metrics.si_sdr(scale * clean, noisy) == pytest.approx(expected, abs=1e-4)


def test_si_sdr_is_infinite_for_a_perfect_and_for_an_unrelated_estimate() -> None:
    clean, noise = np.eye(2)
    assert metrics.si_sdr(clean, 2 * clean) == np.inf
    assert metrics.si_sdr(clean, noise) == -np.inf


def test_energy_ratios_tell_interference_from_artifacts() -> None:
    clean, noise, artifact = orthogonal(3)
    assert metrics.si_sdr(clean, clean + 0.1 * noise) == pytest.approx(20)
    ratios = metrics.energy_ratios(clean, clean + 0.1 * noise + 0.01 * artifact, noise)
    assert ratios == pytest.approx((-10 * np.log10(0.01 + 0.0001), 20, 40))


def test_energy_ratios_add_up_when_noise_resembles_speech() -> None:
    clean, other, artifact = orthogonal(3)
    noise = 0.6 * clean + 0.8 * other
    estimate = clean + 0.3 * noise + 0.1 * artifact
    sdr, sir, sar = metrics.energy_ratios(clean, estimate, noise)
    assert sdr == pytest.approx(metrics.si_sdr(clean, estimate))
    assert 10 ** (-sdr / 10) == pytest.approx(10 ** (-sir / 10) + 10 ** (-sar / 10))
    assert sir == pytest.approx(20 * np.log10(1.18 / 0.24))


def test_ratios_without_distortion_are_missing_with_a_reason() -> None:
    clean, noisy = pair()
    scores = metrics.score(clean, clean, RATE, noisy)
    assert scores["pesq"] > 4.6
    assert np.isnan([scores["si_sdr"], scores["si_sir"], scores["si_sar"]]).all()
    assert scores["reason"] == "SI-SDR is infinite; SI-SIR is infinite; SI-SAR is infinite"
    beside = np.zeros_like(clean)
    beside[clean == 0] = 0.1
    assert "SI-SDR is minus infinite" in metrics.score(np.where(beside > 0, 0, clean), beside, RATE)["reason"]


@pytest.mark.parametrize("which", ["clean", "estimate"])
@pytest.mark.parametrize(("value", "reason"), [(0.0, "is silent"), (np.nan, "holds NaN"), (np.inf, "holds NaN or Inf")])
def test_silent_and_broken_signals_get_no_number(which: str, value: float, reason: str) -> None:
    signals = dict(zip(("clean", "estimate"), pair(), strict=True))
    signals[which] = np.full_like(signals[which], value)
    scores = metrics.score(**signals, sample_rate=RATE)
    assert str(scores.pop("reason")).startswith(f"{which} {reason}")
    assert all(np.isnan(value) for value in scores.values())


def test_silent_noise_leaves_the_other_metrics_alone() -> None:
    clean, noisy = pair()
    scores = metrics.score(clean, noisy, RATE, clean)
    assert np.isfinite([scores["pesq"], scores["estoi"], scores["si_sdr"]]).all()
    assert np.isnan([scores["si_sir"], scores["si_sar"]]).all()
    assert "noise is silent" in scores["reason"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [(pesq_library.NoUtterancesError(b"none"), "no utterance"), (ValueError("division"), "division")],
)
def test_a_failure_of_pesq_leaves_the_other_metrics_alone(
    monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    monkeypatch.setattr(pesq_library, "pesq", lambda *_: (_ for _ in ()).throw(error))
    scores = metrics.score(*pair(), RATE)
    assert np.isnan(scores["pesq"])
    assert np.isfinite([scores["estoi"], scores["si_sdr"]]).all()
    assert reason in scores["reason"]


def bursts(count: int, burst_s: float, pause_s: float) -> np.ndarray:
    """So many stretches of noise [N], with faint noise between them."""
    rng, period = np.random.default_rng(0), round((burst_s + pause_s) * RATE)
    loud = np.arange(count * period) % period < burst_s * RATE
    return (np.where(loud, 0.1, 1e-4) * rng.standard_normal(count * period)).astype(np.float32)


@pytest.mark.parametrize(
    ("count", "pause_s", "expected"), [(60, 0.5, 60), (30, 0.4, 30), (120, 0.15, 1), (200, 0.3, 200)]
)
def test_utterances_are_stretches_that_pauses_of_more_than_a_fifth_of_a_second_part(
    count: int, pause_s: float, expected: int
) -> None:
    assert metrics.count_utterances(bursts(count, 0.4, pause_s)) == expected


def test_more_utterances_than_pesq_has_room_for_are_a_reason_not_a_crash() -> None:
    clean = bursts(80, 0.5, 0.5)
    scores = metrics.score(clean, clean + 0.01 * np.random.default_rng(1).standard_normal(len(clean)), RATE)
    assert np.isnan(scores["pesq"])
    assert "50 utterances" in scores["reason"]
    assert np.isfinite([scores["estoi"], scores["si_sdr"]]).all()
    assert metrics.score(clean[: 40 * RATE], clean[: 40 * RATE], RATE)["pesq"] > 4.5


@pytest.mark.parametrize(
    ("needs", "without_noisy"), [((), 0), (("clean",), 1), (("noise",), None), (("clean", "noisy"), None)]
)
def test_a_metric_that_is_asked_for_gets_the_signals_that_it_needs(
    monkeypatch: pytest.MonkeyPatch, needs: tuple, without_noisy: float | None
) -> None:
    def count(estimate: np.ndarray, **others: np.ndarray) -> tuple[float, float]:
        return len(others), -len(others)

    for part in (0, 1):
        made = metrics.Metric(f"count{part}", "count", 1, True, count, needs, part, asked_as="count")
        monkeypatch.setitem(metrics.METRICS, made.name, made)
    clean, noisy = pair()
    names = metrics.select_metrics(["count"])
    assert names == ("count0", "count1")
    assert not {*names} & metrics.score(clean, noisy, RATE, noisy).keys(), "only what is asked for is computed"
    scores = metrics.score(clean, noisy, RATE, noisy, names)
    assert scores == {"count0": len(needs), "count1": -len(needs), "reason": ""}
    assert metrics.score(clean, noisy, RATE, None, names)["count0"] == pytest.approx(
        np.nan if without_noisy is None else without_noisy, nan_ok=True
    )


def test_estoi_of_too_little_speech_is_missing_not_a_hundred_thousandth() -> None:
    clean, noisy = pair()
    clean = np.where(np.arange(len(clean)) % RATE < RATE // 8, clean, 0)[: RATE + RATE // 4]
    scores = metrics.score(clean, noisy[: len(clean)], RATE)
    assert np.isnan(scores["estoi"])
    assert "ESTOI: too little speech" in scores["reason"]


@pytest.mark.parametrize("samples", [1, 100, 1000, 3000, 6000])
def test_very_short_files_get_reasons_instead_of_a_crash(samples: int) -> None:
    clean, noisy = (signal[8000 : 8000 + samples] for signal in pair())
    scores = metrics.score(clean, noisy, RATE)
    assert np.isnan(scores["estoi"])
    assert "shorter than 0.4 s" in scores["reason"]


def test_other_rates_and_shapes_are_refused() -> None:
    clean, noisy = pair()
    with pytest.raises(ValueError, match="48000 Hz"):
        metrics.score(clean, noisy, 48000)
    with pytest.raises(ValueError, match="one shape"):
        metrics.score(clean, noisy[:-1], RATE)
    with pytest.raises(ValueError, match="one shape"):
        metrics.score(clean[None], noisy[None], RATE)
