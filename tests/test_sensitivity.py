"""The reference with one band louder, and models whose answer to it is known."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from tiny import tiny

from sgmse.diagnostics import sensitivity
from sgmse.diagnostics.items import ProbeFile, enhance_item
from sgmse.diagnostics.sensitivity import NUM_BANDS, band_edges, boost_bands, measure_attenuation
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.diffusion.transform import SpectrogramTransform

RATE = 16000
TRANSFORM = SpectrogramTransform(510, 128, 0.15, 0.5)


def noise(seconds: float = 2.0, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def item(clean: torch.Tensor | None = None) -> ProbeFile:
    speech = torch.zeros(2 * RATE) if clean is None else clean
    return ProbeFile("a.wav", noise() + speech, speech, noise(1.0, seed=1), None, "rain.wav", "rain", "")


def filtered(waveform: torch.Tensor, band: int, gain: float, margin_hz: float = 0.0) -> torch.Tensor:
    """`waveform` with one band multiplied by `gain`, with edges as sharp as can be."""
    edges, frequency = band_edges(RATE), torch.fft.rfftfreq(len(waveform), 1 / RATE)
    inside = (frequency >= edges[band] - margin_hz) & (frequency <= edges[band + 1] + margin_hz)
    return torch.fft.irfft(torch.where(inside, gain, 1.0) * torch.fft.rfft(waveform), n=len(waveform))


def test_bands_fill_the_spectrum_and_are_equally_wide_in_mel():
    edges = band_edges(RATE)
    assert edges[[0, -1]] == pytest.approx([0, RATE / 2])
    mel = 2595 * np.log10(1 + edges / 700)
    assert np.diff(mel) == pytest.approx([mel[-1] / NUM_BANDS] * NUM_BANDS)
    shares = sensitivity.band_shares(torch.linspace(0, RATE / 2, 999), RATE)
    torch.testing.assert_close(shares.sum(dim=0), torch.ones(999))
    assert shares.min() >= 0


def test_one_band_is_raised_by_six_decibels_in_zero_phase_and_the_others_keep_their_level():
    plain, edges = noise(1.0), band_edges(RATE)
    frequency = np.fft.rfftfreq(len(plain), 1 / RATE)
    change = 20 * np.log10(np.abs(np.fft.rfft(boost_bands(plain, RATE)) / np.fft.rfft(plain)))
    middle = [np.abs(frequency - (low + high) / 2) < 0.4 * (high - low) for low, high in pairwise(edges)]
    found = np.stack([np.median(change[:, bins], axis=1) for bins in middle], axis=1)
    np.testing.assert_allclose(found, 6 * np.eye(NUM_BANDS), atol=0.15)
    tone = torch.sin(2 * np.pi * 1000 * torch.arange(8000) / RATE)
    louder = boost_bands(tone, RATE)[int(np.searchsorted(edges, 1000)) - 1]
    torch.testing.assert_close(louder[1000:7000], 10 ** (6 / 20) * tone[1000:7000], rtol=0.01, atol=0.01)
    short = boost_bands(noise(0.02), RATE)
    assert short.shape == (NUM_BANDS, 320)
    assert torch.isfinite(short).all(), "shorter than the filter"


def test_a_model_that_takes_away_just_that_band_has_six_decibels_on_the_diagonal():
    own = item()

    def enhance(references: torch.Tensor) -> torch.Tensor:
        halved = [filtered(own.noisy, band, 10 ** (-6 / 20)) for band in range(len(references) - 1)]
        return torch.stack([own.noisy, *halved])

    found = measure_attenuation(enhance, own, TRANSFORM, RATE).numpy()
    # the window smears the edges of narrow bands
    np.testing.assert_allclose(found, 6 * np.eye(NUM_BANDS), atol=0.8)
    rows = [["a", "s", "k", i, j, value] for (i, j), value in np.ndenumerate(found)]
    score = sensitivity.score_files(pd.DataFrame(rows, columns=sensitivity.COLUMNS)).iloc[0]
    assert score["score"] == pytest.approx(6.0, abs=0.6)


def test_a_model_that_ignores_its_reference_attenuates_nothing_more_and_bands_full_of_speech_are_left_out():
    for own, bands in (
        (item(), range(NUM_BANDS)),
        (item(999 * (noise() - filtered(noise(), 3, 0.0, 100))), (0, 1, 5, 6, 7)),
    ):
        same = own.noisy

        def enhance(references: torch.Tensor, same: torch.Tensor = same) -> torch.Tensor:
            return same.expand(len(references), -1)

        found = measure_attenuation(enhance, own, TRANSFORM, RATE)
        assert not found[:, [*bands]].any()
    assert found[:, 3].isnan().all(), "speech is louder than the noise there, everywhere"


def test_the_matrix_and_the_scores_are_means_over_files_without_missing_bands():
    rows = [
        [file, file, "k", i, j, np.nan if (file, j) == ("b", 7) else own if i == j else 1.0]
        for file, own in (("a", 3.0), ("b", 5.0))
        for i in range(NUM_BANDS)
        for j in range(NUM_BANDS)
    ]
    table = pd.DataFrame(rows, columns=sensitivity.COLUMNS)
    found = sensitivity.attenuation_matrix(table)
    assert found[[0, 7, 0], [0, 7, 1]].tolist() == [4.0, 3.0, 1.0]
    assert sensitivity.score_files(table)["score"].tolist() == [2.0, 4.0]


@pytest.mark.parametrize("sde", ["sbve", "ouve"])
def test_every_reference_meets_the_same_noise_whatever_shares_its_batch(sde):
    model, own = tiny(sde=sde).eval(), item()
    own = ProbeFile(own.name, own.noisy[:3000], own.clean[:3000], own.reference, None, "", "", "")
    references, sampler = torch.stack([own.reference, own.reference, noise(1.0, seed=3)]), SamplerSettings(N=2)
    found = enhance_item(model, own, references, sampler, 0)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-5)
    assert (found[0] - found[2]).abs().max() > 1e-4
    alone = enhance_item(model, own, references[2:], sampler, 0)
    torch.testing.assert_close(alone[0], found[2], rtol=1e-3, atol=1e-4)
    rows = sensitivity.measure_sensitivity(model, [own], SamplerSettings(N=1), 0, 2)
    assert len(rows) == NUM_BANDS**2
