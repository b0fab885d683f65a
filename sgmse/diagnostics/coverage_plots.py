"""Pictures of the coverage: training and test references in one map, and gain over distance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from sgmse.common.files import save_figure
from sgmse.diagnostics.coverage import DISTANCES
from sgmse.diagnostics.probe_plots import bare

_PERPLEXITY = 30.0  # neighbours that t-SNE keeps together, van der Maaten & Hinton 2008
_TRAINING = "0.72"
_KINDS_NAMED = 12  # more labels than these hide the points


def mapped(vectors: np.ndarray) -> dict[str, np.ndarray]:
    """Embeddings [n, D] in the plane [n, 2]: by PCA, and by t-SNE from there."""
    principal = PCA(2, random_state=0).fit(vectors)
    shares = principal.explained_variance_ratio_.sum()
    perplexity = min(_PERPLEXITY, (len(vectors) - 1) / 3)
    neighbours = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(vectors)
    return {f"PCA, {shares:.0%} of the variance": principal.transform(vectors), "t-SNE": neighbours}


def write_map(training: np.ndarray, table: pd.DataFrame, vectors: np.ndarray, path: Path) -> None:
    """Training references [n, D] in grey below those of the sets [m, D], whose rows `table` (set, kind) describes."""
    figure = Figure(figsize=(13, 6), dpi=110, layout="constrained")
    maps = mapped(np.concatenate([training, vectors]))
    for axes, (title, places) in zip(figure.subplots(1, 2), maps.items(), strict=True):
        known, new = places[: len(training)], places[len(training) :]
        label = f"training, {len(training)} references"
        axes.plot(*known.T, "o", color=_TRAINING, ms=4, label=label, zorder=1)
        for place, (name, rows) in enumerate(table.reset_index(drop=True).groupby("set", sort=False)):
            look = {"color": f"C{place}", "marker": "osD^v"[place % 5]}
            axes.plot(*new[rows.index].T, ls="", ms=5.5, mec="white", mew=0.4, label=str(name), zorder=2, **look)
            _name_kinds(axes, rows, new, f"C{place}")
        axes.set_title(title, fontsize=11)
        axes.set(xticks=[], yticks=[])
    figure.axes[0].legend(frameon=False, fontsize=9)
    save_figure(figure, path)


def _name_kinds(axes: Axes, rows: pd.DataFrame, places: np.ndarray, colour: str) -> None:
    """The name of each kind of noise at the middle of its references, where there are few kinds."""
    kinds = [kind for kind in rows["kind"].unique() if kind]
    for kind in kinds if len(kinds) <= _KINDS_NAMED else ():
        x, y = np.median(places[rows.index[rows["kind"] == kind]], axis=0)
        text = axes.text(x, y, kind, fontsize=7.5, color=colour, ha="center", va="bottom", zorder=3)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])  # readable over the points


def write_distances(table: pd.DataFrame, lines: pd.DataFrame, gain: str, path: Path) -> None:
    """Gain over each distance, a point per file; lines of `coverage.correlations` say how they go together."""
    figure = Figure(figsize=(12, 4.6), dpi=110, layout="constrained")
    for axes, (distance, title) in zip(figure.subplots(1, len(DISTANCES), sharey=True), DISTANCES.items(), strict=True):
        found = lines[lines["distance"] == distance].set_index("set")
        for place, (name, rows) in enumerate(table.groupby("set", sort=False)):
            line = found.loc[str(name)]
            label = f"{name}: ρ {line['rho']:+.2f} [{line['low']:+.2f}, {line['high']:+.2f}]"
            axes.plot(rows[distance], rows["gain"], "osD^v"[place % 5], color=f"C{place}", ms=5, alpha=0.8, label=label)
        axes.axhline(0, color="0.6", lw=1, zorder=0)
        axes.axvline(1, color="0.6", lw=1, ls=(0, (6, 3)), zorder=0)
        axes.set(xlabel=f"{title} (1: 19 of 20 training references lie within)")
        axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)  # beside no point
        bare(axes)
    figure.axes[0].set(ylabel=f"gain in PESQ, {gain}")
    save_figure(figure, path)
