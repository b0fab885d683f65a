"""Figures of coverage: a map of reference embeddings, and the gain over the distance from the training's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from sgmse.common.files import save_figure
from sgmse.diagnostics.coverage import DISTANCES
from sgmse.evaluation.figures import finish_axes

_MARKERS = "osD^v"
_PERPLEXITY = 30.0  # neighbours that t-SNE keeps together, van der Maaten & Hinton 2008
_KINDS_NAMED = 12  # more labels than these hide the points


def draw_map(training: np.ndarray, table: pd.DataFrame, vectors: np.ndarray, path: Path) -> None:
    """Training references [n, D] in grey below those of the sets [m, D], whose rows `table` (set, kind) describes.

    The name of each kind of noise stands at the middle of its references, where there are few kinds.
    """
    figure = Figure(figsize=(13, 6), dpi=110, layout="constrained")
    together = np.concatenate([training, vectors])
    principal = PCA(2, random_state=0).fit(together)
    title = f"PCA, {principal.explained_variance_ratio_.sum():.0%} of the variance"
    perplexity = min(_PERPLEXITY, (len(together) - 1) / 3)
    neighbours = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(together)
    maps = {title: principal.transform(together), "t-SNE": neighbours}
    for axes, (title, places) in zip(figure.subplots(1, 2), maps.items(), strict=True):
        known = places[: len(training)]
        new = table.assign(x=places[len(training) :, 0], y=places[len(training) :, 1])
        axes.plot(*known.T, "o", color="0.72", ms=4, label=f"training, {len(training)} references", zorder=1)
        for place, (name, rows) in enumerate(new.groupby("set", sort=False)):
            look = {"color": f"C{place}", "marker": _MARKERS[place % len(_MARKERS)]}
            axes.plot(rows["x"], rows["y"], ls="", ms=5.5, mec="white", mew=0.4, label=str(name), zorder=2, **look)
            middles = rows[rows["kind"] != ""].groupby("kind")[["x", "y"]].median()
            for kind, (x, y) in middles.iterrows() if len(middles) <= _KINDS_NAMED else ():
                text = axes.text(x, y, kind, fontsize=7.5, color=f"C{place}", ha="center", va="bottom", zorder=3)
                text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])  # readable over the points
        axes.set_title(title, fontsize=11)
        axes.set(xticks=[], yticks=[])
    figure.axes[0].legend(frameon=False, fontsize=9)
    save_figure(figure, path)


def draw_distances(table: pd.DataFrame, lines: pd.DataFrame, gain: str, path: Path) -> None:
    """Gain over each distance, a point per file; lines of `correlate_sets` say how they go together."""
    figure = Figure(figsize=(12, 4.6), dpi=110, layout="constrained")
    for axes, (distance, title) in zip(figure.subplots(1, len(DISTANCES), sharey=True), DISTANCES.items(), strict=True):
        found = lines[lines["distance"] == distance].set_index("set")["found"]
        for place, (name, rows) in enumerate(table.groupby("set", sort=False)):
            one = found[str(name)]
            look = {"color": f"C{place}", "marker": _MARKERS[place % len(_MARKERS)]}
            label = f"{name}: ρ {one.mean:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"
            axes.plot(rows[distance], rows["gain"], ls="", ms=5, alpha=0.8, label=label, **look)
        axes.axhline(0, color="0.6", lw=1, zorder=0)
        axes.axvline(1, color="0.6", lw=1, ls=(0, (6, 3)), zorder=0)
        axes.set(xlabel=f"{title} (1: 19 of 20 training references lie within)")
        axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)  # beside no point
        finish_axes(axes)
    figure.axes[0].set(ylabel=f"gain in PESQ, {gain}")
    save_figure(figure, path)
