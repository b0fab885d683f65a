"""The reference with one band louder, and models whose answer to it is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import tiny

from sgmse.diagnostics import sensitivity
from sgmse.diagnostics.items import Item, enhance_item
from sgmse.diagnostics.sensitivity import NUM_BANDS, band_edges, boost_bands, measure_attenuation
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.diffusion.transform import SpectrogramTransform

RATE = 16000
TRANSFORM = SpectrogramTransform(510, 128, 0.15, 0.5)


def noise(seconds: float = 2.0, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def item(clean: torch.Tensor | None = None) -> Item:
    speech = torch.zeros(2 * RATE) if clean is None else clean
    return Item("a.wav", noise() + speech, speech, noise(1.0, seed=1), None, "rain.wav", "rain", "")


def band_db(waveform: torch.Tensor) -> np.ndarray:
    """Level in dB of the middle 80 % of each band (on the frequency axis) [NUM_BANDS]."""
    power = np.abs(np.fft.rfft(waveform.numpy())) ** 2
    frequency, edges = np.fft.rfftfreq(len(waveform), 1 / RATE), band_edges(RATE)
    width = np.diff(edges)
    inner = [
        (frequency > low + 0.1 * w) & (frequency < high - 0.1 * w)
        for low, high, w in zip(edges[:-1], edges[1:], width, strict=True)
    ]
    return 10 * np.log10([power[bins].sum() for bins in inner])


def filtered(waveform: torch.Tensor, band: int, db: float) -> torch.Tensor:
    """`waveform` with one band changed by `db`, with edges as sharp as can be."""
    spectrum, edges = torch.fft.rfft(waveform), band_edges(RATE)
    frequency = torch.fft.rfftfreq(len(waveform), 1 / RATE)
    inside = (frequency >= edges[band]) & (frequency <= edges[band + 1])
    return torch.fft.irfft(torch.where(inside, 10 ** (db / 20), 1.0) * spectrum, n=len(waveform))


def test_bands_fill_the_spectrum_and_are_equally_wide_in_mel():
    edges = band_edges(RATE)
    assert edges[[0, -1]] == pytest.approx([0, RATE / 2])
    mel = 2595 * np.log10(1 + edges / 700)
    assert np.diff(mel) == pytest.approx([mel[-1] / NUM_BANDS] * NUM_BANDS)


def test_one_band_is_raised_by_six_decibels_and_the_others_keep_their_level():
    plain = noise(1.0)
    found = np.stack([band_db(louder) for louder in boost_bands(plain, RATE)]) - band_db(plain)
    np.testing.assert_allclose(found, 6 * np.eye(NUM_BANDS), atol=0.15)


def test_the_filters_have_zero_phase_and_together_raise_everything():
    tone = torch.sin(2 * np.pi * 1000 * torch.arange(8000) / RATE)
    inner = slice(1000, 7000)
    louder = boost_bands(tone, RATE)
    band = int(np.searchsorted(band_edges(RATE), 1000)) - 1
    torch.testing.assert_close(louder[band][inner], 10 ** (6 / 20) * tone[inner], rtol=0.01, atol=0.01)
    gains = sensitivity.band_shares(torch.linspace(0, RATE / 2, 999), RATE)
    torch.testing.assert_close(gains.sum(dim=0), torch.ones(999))
    assert gains.min() >= 0


def test_a_reference_shorter_than_the_filter_stays_finite_and_as_long():
    found = boost_bands(noise(0.02), RATE)
    assert found.shape == (NUM_BANDS, 320)
    assert torch.isfinite(found).all()


def test_a_model_that_takes_away_just_that_band_has_six_decibels_on_the_diagonal():
    own = item()

    def enhance(references: torch.Tensor) -> torch.Tensor:
        return torch.stack([own.noisy, *(filtered(own.noisy, band, -6.0) for band in range(len(references) - 1))])

    found = measure_attenuation(enhance, own, TRANSFORM, RATE).numpy()
    assert np.diag(found) == pytest.approx([6.0] * NUM_BANDS, abs=0.8)  # the window smears the edges of narrow bands
    assert np.abs(found - np.diag(np.diag(found))).max() < 0.8
    rows = [["a", "s", "k", i, j, found[i, j]] for i in range(NUM_BANDS) for j in range(NUM_BANDS)]
    score = sensitivity.score_files(pd.DataFrame(rows, columns=sensitivity.COLUMNS)).iloc[0]
    assert score["score"] == pytest.approx(6.0, abs=0.6)


def test_a_model_that_ignores_its_reference_attenuates_nothing_more():
    own = item()
    found = measure_attenuation(lambda references: own.noisy.expand(len(references), -1), own, TRANSFORM, RATE)
    assert not found.any()


def test_a_band_in_which_speech_is_louder_everywhere_is_left_out():
    spectrum, edges = torch.fft.rfft(noise()), band_edges(RATE)
    frequency = torch.fft.rfftfreq(2 * RATE, 1 / RATE)
    inside = (frequency > edges[3] - 100) & (frequency < edges[4] + 100)  # the window smears the edges
    own = item(clean=torch.fft.irfft(1000 * inside * spectrum, n=2 * RATE))
    found = measure_attenuation(lambda references: own.noisy.expand(len(references), -1), own, TRANSFORM, RATE)
    assert found[:, 3].isnan().all()
    assert not found[:, [0, 1, 5, 6, 7]].any()


def test_the_matrix_and_the_selectivity_are_means_over_files_without_missing_bands():
    rows = []
    for file, own in (("a", 3.0), ("b", 5.0)):
        for i in range(NUM_BANDS):
            for j in range(NUM_BANDS):
                missing = file == "b" and j == 7
                rows.append([file, file, "k", i, j, np.nan if missing else own if i == j else 1.0])
    table = pd.DataFrame(rows, columns=sensitivity.COLUMNS)
    found = sensitivity.attenuation_matrix(table)
    assert found[0, 0] == 4.0
    assert found[7, 7] == 3.0
    assert found[0, 1] == 1.0
    assert sensitivity.score_files(table)["score"].tolist() == [2.0, 4.0]


@pytest.mark.parametrize("sde", ["sbve", "ouve"])
def test_every_reference_meets_the_same_noise_whatever_shares_its_batch(sde):
    model, own = tiny(sde=sde).eval(), item()
    own = Item(own.name, own.noisy[:3000], own.clean[:3000], own.reference, None, "", "", "")
    references = torch.stack([own.reference, own.reference, noise(1.0, seed=3)])
    found = enhance_item(model, own, references, SamplerSettings(N=2), 0)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
    assert (found[0] - found[2]).abs().max() > 1e-4
    alone = enhance_item(model, own, references[2:], SamplerSettings(N=2), 0)
    torch.testing.assert_close(alone[0], found[2], rtol=1e-3, atol=1e-4)
    rows = sensitivity.measure_sensitivity(model, [own], SamplerSettings(N=1), 0, 9)
    assert len(rows) == NUM_BANDS**2
