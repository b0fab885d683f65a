"""What a model does when one band of its reference gets louder: does it take away more there than elsewhere?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from sgmse.common.files import save_figure, write_csv
from sgmse.common.progress import track
from sgmse.diagnostics.items import ProbeFile, enhance_item, mean_over_files
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.diffusion.transform import SpectrogramTransform
from sgmse.evaluation.figures import finish_axes
from sgmse.evaluation.tables import interval
from sgmse.model.enhancer import Enhancer

NUM_BANDS = 8
BOOST_DB = 6.0
_RAMP = 0.1  # of a band, over which the gain rises at its edge
_PAD_S = 0.1  # longer than the response of the filter
COLUMNS = ["file", "source", "kind", "boosted", "band", "attenuation_db"]


def band_edges(sample_rate: int) -> np.ndarray:
    """[NUM_BANDS + 1] in Hz: bands of equal width on the mel scale (O'Shaughnessy 1987) up to half the rate."""
    top = 2595 * np.log10(1 + sample_rate / 2 / 700)
    return 700 * (10 ** (np.linspace(0, top, NUM_BANDS + 1) / 2595) - 1)


def boost_bands(reference: Tensor, sample_rate: int) -> Tensor:
    """[NUM_BANDS, M]: the reference [M] with each band in turn raised by `BOOST_DB`, in zero phase.

    At every frequency the gains of all bands together, in dB, are `BOOST_DB`.
    """
    pad = min(round(_PAD_S * sample_rate), len(reference) - 1)
    padded = torch.nn.functional.pad(reference[None], (pad, pad), mode="reflect")[0]
    frequency = torch.fft.rfftfreq(len(padded), 1 / sample_rate, device=reference.device)
    gain = 10 ** (BOOST_DB / 20 * band_shares(frequency, sample_rate))
    return torch.fft.irfft(gain * torch.fft.rfft(padded), n=len(padded))[:, pad : pad + len(reference)]


def band_shares(frequency: Tensor, sample_rate: int) -> Tensor:
    """[NUM_BANDS, K]: how far each frequency [K] belongs to each band, 1 inside; they sum to one."""
    edges = torch.as_tensor(band_edges(sample_rate), dtype=frequency.dtype, device=frequency.device)
    ramp = _RAMP * edges.diff()
    width = torch.minimum(ramp[:-1], ramp[1:])
    above_edge = ((frequency - edges[1:-1, None]) / width[:, None] + 0.5).clamp(0, 1)
    ones = torch.ones_like(frequency)[None]
    return torch.cat([ones, above_edge]) - torch.cat([above_edge, 0 * ones])


def measure_attenuation(
    enhance: Callable[[Tensor], Tensor], item: ProbeFile, transform: SpectrogramTransform, sample_rate: int
) -> Tensor:
    """[NUM_BANDS, NUM_BANDS]: how many dB more of the noise goes in each band (columns), by which one is raised (rows).

    The output's level is taken where the noise of the file is louder than its speech, so that speech does not hide
    what happens to the noise; NaN for a band in which it nowhere is.

    Args:
        enhance: references [B, M] → the file enhanced with each [B, N].
    """
    outputs = enhance(torch.cat([item.reference[None], boost_bands(item.reference, sample_rate)]))
    noise, speech = (transform.stft(w[None].to(outputs.device)).abs() for w in (item.noisy - item.clean, item.clean))
    power = transform.stft(outputs).abs().square() * (noise > speech)
    frequency = np.fft.rfftfreq(transform.n_fft, 1 / sample_rate)
    bands = torch.as_tensor(np.searchsorted(band_edges(sample_rate)[1:-1], frequency), device=outputs.device)
    levels = torch.zeros(len(outputs), NUM_BANDS, device=outputs.device, dtype=power.dtype)
    levels = levels.index_add(1, bands, power.sum(dim=-1))
    levels = torch.where(levels > 0, 10 * levels.log10(), torch.nan)
    return levels[:1] - levels[1:]


def measure_sensitivity(
    model: Enhancer, items: Sequence[ProbeFile], sampler: SamplerSettings, seed: int, batch_size: int
) -> pd.DataFrame:
    """A row per file, band that is raised and band that is looked at: `COLUMNS`; bands count from 0."""
    rate, rows = model.settings["sample_rate"], []
    for item in track(items, len(items), "sensitivity"):

        def enhance(references: Tensor, item: ProbeFile = item) -> Tensor:
            parts = references.split(batch_size)
            return torch.cat([enhance_item(model, item, part, sampler, seed) for part in parts])

        found = measure_attenuation(enhance, item, model.transform, rate)
        for raised, line in enumerate(found.tolist()):
            rows += [[item.name, item.source, item.kind, raised, band, value] for band, value in enumerate(line)]
    return pd.DataFrame(rows, columns=COLUMNS)


def attenuation_matrix(rows: pd.DataFrame) -> np.ndarray:
    """[NUM_BANDS, NUM_BANDS]: the attenuation in dB, mean over files; a row per band that is raised."""
    return rows.pivot_table(index="boosted", columns="band", values="attenuation_db", dropna=False).to_numpy()


def score_files(rows: pd.DataFrame) -> pd.DataFrame:
    """Per file (file, source): mean attenuation in the raised band (own) and elsewhere, and their difference (score).

    A model that subtracts what its reference holds would score near `BOOST_DB`, one that ignores its reference 0.
    """
    is_own = (rows["boosted"] == rows["band"]).map({True: "own", False: "elsewhere"})
    table = rows.pivot_table("attenuation_db", ["file", "source"], is_own.rename(None)).reset_index()
    return table.assign(score=table["own"] - table["elsewhere"])


def write_sensitivity(
    model: Enhancer, items: Sequence[ProbeFile], sampler: SamplerSettings, seed: int, batch_size: int, out: Path
) -> str:
    """Measure the sensitivity and write sensitivity.csv and sensitivity.png. Returns what to print."""
    rows = measure_sensitivity(model, items, sampler, seed, batch_size)
    write_csv(rows, out / "sensitivity.csv")
    files = score_files(rows)
    draw_sensitivity(attenuation_matrix(rows), files, model.settings["sample_rate"], out / "sensitivity.png")
    lines = [f"sensitivity to {BOOST_DB:+.0f} dB in one band of the reference"]
    titles = {"own": "attenuation of the noise in that band", "elsewhere": "in the other bands", "score": "difference"}
    for name, title in titles.items():
        found = mean_over_files(files, name)
        shown = interval(found.mean, found.low, found.high, decimals=2, signed=False)
        lines.append(f"{title:37}  {shown}{' dB more' if name == 'own' else ''}")
    return "\n".join(lines)


def draw_sensitivity(matrix: np.ndarray, files: pd.DataFrame, sample_rate: int, path: Path) -> None:
    """The matrix of attenuations, and per file how much more goes in the raised band than elsewhere."""
    figure = Figure(figsize=(11, 4.6), dpi=110, layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[1.25, 1])
    most = max(1.0, float(np.nanmax(np.abs(matrix)))) if np.isfinite(matrix).any() else 1.0
    image = left.imshow(matrix, cmap="RdBu_r", vmin=-most, vmax=most, origin="lower", aspect="auto")
    for (raised, band), value in np.ndenumerate(matrix):
        colour = "white" if abs(value) > 0.6 * most else "0.2"
        left.text(band, raised, "–" if np.isnan(value) else f"{value:z.1f}", ha="center", va="center", color=colour)
    names = [f"{low:.1f}–{high:.1f}" for low, high in pairwise(band_edges(sample_rate) / 1000)]
    left.set_xticks(range(NUM_BANDS), names, rotation=40, ha="right")
    left.set_yticks(range(NUM_BANDS), names)
    left.set(xlabel="band of the output, kHz", ylabel=f"band of the reference with {BOOST_DB:+.0f} dB, kHz")
    figure.colorbar(image, ax=left, label="attenuation of the noise, dB more")
    right.axline((0, 0), slope=1, color="0.6", lw=1, ls="--")
    right.plot(files["elsewhere"], files["own"], "o", color="C0", ms=5, alpha=0.8)
    right.set(xlabel="attenuation elsewhere, dB", ylabel="attenuation in the raised band, dB")
    right.set_title(f"{len(files)} files; above the line: more where it says", fontsize=10)
    finish_axes(right)
    save_figure(figure, path)
