"""What a model does when one band of its reference gets louder: does it take away more there than elsewhere?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from tqdm import tqdm

from sgmse.diagnostics.items import Item
from sgmse.diffusion.noise import FrameNoise
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.diffusion.transform import SpectrogramTransform
from sgmse.model.enhancer import Enhancer

NUM_BANDS = 8
BOOST_DB = 6.0
_RAMP = 0.1  # of a band, over which the gain rises at its edge
_PAD_S = 0.1  # longer than the response of the filter
COLUMNS = ["file", "source", "kind", "boosted", "band", "attenuation_db"]

Enhance = Callable[[Tensor], Tensor]  # references [B, M] → enhanced [B, N] of one noisy file


def band_edges(sample_rate: int) -> np.ndarray:
    """[NUM_BANDS + 1] in Hz: bands of equal width on the mel scale (O'Shaughnessy 1987) up to half the rate."""
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    return 700 * (10 ** (np.linspace(0, top, NUM_BANDS + 1) / 2595) - 1)


def boosted(reference: Tensor, sample_rate: int) -> Tensor:
    """[NUM_BANDS, M]: the reference [M] with each band in turn raised by `BOOST_DB`, in zero phase.

    At every frequency the gains of all bands together, in dB, are `BOOST_DB`.
    """
    pad = min(round(_PAD_S * sample_rate), len(reference) - 1)
    padded = torch.nn.functional.pad(reference[None], (pad, pad), mode="reflect")[0]
    spectrum = torch.fft.rfft(padded)
    frequency = torch.fft.rfftfreq(len(padded), 1 / sample_rate, device=reference.device)
    gain = 10 ** (BOOST_DB / 20 * _shares(frequency, sample_rate))
    return torch.fft.irfft(gain * spectrum, n=len(padded))[:, pad : pad + len(reference)]


def _shares(frequency: Tensor, sample_rate: int) -> Tensor:
    """[NUM_BANDS, K]: how far each frequency [K] belongs to each band, 1 inside; they sum to one."""
    edges = torch.as_tensor(band_edges(sample_rate), dtype=frequency.dtype, device=frequency.device)
    ramp = _RAMP * edges.diff()
    width = torch.minimum(ramp[:-1], ramp[1:])
    risen = ((frequency - edges[1:-1, None]) / width[:, None] + 0.5).clamp(0, 1)
    ones = torch.ones_like(frequency)[None]
    return torch.cat([ones, risen]) - torch.cat([risen, 0 * ones])


def attenuation(enhance: Enhance, item: Item, transform: SpectrogramTransform, sample_rate: int) -> Tensor:
    """[NUM_BANDS, NUM_BANDS]: how many dB more of the noise goes in each band (columns), by which one is raised (rows).

    The output's level is taken where the noise of the file is louder than its speech, so that speech does not hide
    what happens to the noise; NaN for a band in which it nowhere is.
    """
    references = torch.cat([item.reference[None], boosted(item.reference, sample_rate)])
    outputs = enhance(references)
    noise, speech = (transform.stft(w[None].to(outputs.device)).abs() for w in (item.noisy - item.clean, item.clean))
    power = transform.stft(outputs).abs().square() * (noise > speech)
    frequency = np.fft.rfftfreq(transform.n_fft, 1 / sample_rate)
    bands = torch.as_tensor(np.searchsorted(band_edges(sample_rate)[1:-1], frequency), device=outputs.device)
    levels = torch.zeros(len(outputs), NUM_BANDS, device=outputs.device, dtype=power.dtype)
    levels = levels.index_add(1, bands, power.sum(dim=-1))
    levels = torch.where(levels > 0, 10 * levels.log10(), torch.nan)
    return levels[:1] - levels[1:]


def enhancer(model: Enhancer, item: Item, sampler: SamplerSettings, seed: int, batch_size: int) -> Enhance:
    """One noisy file as a function of its reference; every reference gets the same noise of the sampler."""

    def enhance(references: Tensor) -> Tensor:
        return torch.cat([_enhanced(part) for part in references.split(batch_size)])

    def _enhanced(references: Tensor) -> Tensor:
        count = len(references)
        noisy = item.noisy.expand(count, -1).to(model.device)
        noise = FrameNoise([f"{seed} {item.name} 0 0"] * count)
        encoded = model.encode_reference(references.to(model.device), torch.ones(count, device=model.device))
        return model.enhance_batch(noisy, encoded, noise, sampler=sampler).waveform

    return enhance


def measure(
    model: Enhancer, items: Sequence[Item], sampler: SamplerSettings, seed: int, batch_size: int
) -> pd.DataFrame:
    """A row per file, band that is raised and band that is looked at: `COLUMNS`; bands count from 0."""
    rate, rows = model.settings["sample_rate"], []
    for item in tqdm(items, desc="sensitivity", unit="file", disable=None):
        found = attenuation(enhancer(model, item, sampler, seed, batch_size), item, model.transform, rate)
        for raised, line in enumerate(found.tolist()):
            rows += [[item.name, item.source, item.kind, raised, band, value] for band, value in enumerate(line)]
    return pd.DataFrame(rows, columns=COLUMNS)


def matrix(rows: pd.DataFrame) -> np.ndarray:
    """[NUM_BANDS, NUM_BANDS]: the attenuation in dB, mean over files; a row per band that is raised."""
    return rows.pivot_table(index="boosted", columns="band", values="attenuation_db", dropna=False).to_numpy()


def selectivity(rows: pd.DataFrame) -> pd.DataFrame:
    """Per file (file, source): mean attenuation in the raised band (own) and elsewhere, and their difference (score).

    A model that subtracts what it is told would score near `BOOST_DB`, one that ignores its reference 0.
    """
    keys = ["file", "source"]
    is_own = rows["boosted"] == rows["band"]
    own = rows[is_own].groupby(keys)["attenuation_db"].mean()
    elsewhere = rows[~is_own].groupby(keys)["attenuation_db"].mean()
    table = pd.DataFrame({"own": own, "elsewhere": elsewhere}).reset_index()
    return table.assign(score=table["own"] - table["elsewhere"])
