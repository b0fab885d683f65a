"""How far test references lie from those of the training, as the encoder hears them, and what that does to the gain.

The coverage theory: the score network sees every diffusion time in training, but the noise embedding only where the
training noise put it. A reference that lands elsewhere should then help less. So the theory predicts a negative rank
correlation between the distance and the gain of each file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch import Tensor
from tqdm import tqdm

from sgmse.common.errors import UserError
from sgmse.common.files import save_figure, write_csv
from sgmse.data import audio, corpora
from sgmse.diagnostics.figures import MARKERS, bare_axes
from sgmse.diagnostics.items import open_references
from sgmse.diffusion import adaptive
from sgmse.diffusion.adaptive import Familiarity
from sgmse.evaluation.statistics import Difference, hierarchical
from sgmse.model.datamodule import build_datamodule
from sgmse.model.enhancer import Enhancer
from sgmse.settings import cli
from sgmse.settings.checks import check_data
from sgmse.settings.config import TRAIN_GROUPS, DataConfig, ModelConfig, TrainConfig

NEIGHBOURS = 5
FEWEST = 8  # files with a gain, below which a rank correlation says nothing
DISTANCES = {"mahalanobis": "Mahalanobis distance", "neighbours": f"distance of the {NEIGHBOURS} nearest neighbours"}
_UNIT = 0.95  # quantile of the training references' own distances; as in `adaptive`
_LARGEST_RHO = 0.999  # Fisher's z of 1 is infinite
_PERPLEXITY = 30.0  # neighbours that t-SNE keeps together, van der Maaten & Hinton 2008
_KINDS_NAMED = 12  # more labels than these hide the points


def find_training_settings(ckpt: Path, train: Sequence[Path]) -> tuple[Path, list[str]]:
    """The settings of the training behind a checkpoint, and folders of noise to take instead of those they name.

    train: a .yaml file of settings instead of that beside the checkpoint, and folders of noise.
    """
    files = [path for path in train if path.suffix in (".yaml", ".yml")]
    if len(files) > 1:
        raise UserError(f"--train {files[1]}: names a second file of settings; give one")
    folders = [path for path in train if path not in files]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"--train {folder}: is no folder of noise, nor a .yaml file of settings; check the path")
    config = files[0] if files else ckpt.parent.parent / "config.yaml"
    if not config.is_file():
        raise UserError(
            f"{config}: no such file, so nothing says what {ckpt} was trained on; name the settings of its run with "
            "--train"
        )
    return config, [str(folder) for folder in folders]


def draw_training_references(model: Enhancer, config: Path, noise_dirs: Sequence[str]) -> list[Tensor]:
    """The first `adaptive.NUM_REFERENCES` references [M] that a training with the settings of `config` draws.

    The same as those which a validation of that training takes. noise_dirs: noise instead of that of the settings.
    """
    values = cli.parse(cli.make_parser(TRAIN_GROUPS, ""), ["--config", str(config)])[-1].values
    if noise_dirs:
        if values["base_dir"] is not None:
            raise UserError(f"{config}: trains on pairs, whose noise cannot be replaced by --train {noise_dirs[0]}")
        values["noise_dir"] = list(noise_dirs)
        embedded_speech = str(corpora.embedded_dir() / "speech")
        values["speech_dir"] = values["speech_dir"] or [embedded_speech]  # what the run mixed its noise with
    settings, data = cli.take(ModelConfig, model.settings), cli.take(DataConfig, values)
    check_data(data, settings)
    items = build_datamodule(data, settings, cli.take(TrainConfig, values).seed).train
    keys = tqdm(range(adaptive.NUM_REFERENCES), desc="training references", unit="item", disable=None)
    return [reference for key in keys if len(reference := items[key]["reference"])]


def embed_training(model: Enhancer, references: Sequence[Tensor]) -> tuple[Tensor, Familiarity]:
    """Vectors [n, D] of training references [M], and the Gaussian around them that adaptive guidance uses too.

    Raises `UserError` where the encoder tells too little apart for distances.
    """
    vectors = adaptive.encode_recordings(model.encode, references, model.device)
    fitted = adaptive.fit_familiarity(vectors)
    if vectors is None or fitted is None:
        raise UserError(
            f"of the training items {len(references)} have a reference, which is too few, or the encoder hears no "
            "difference between them; name other settings with --train"
        )
    return vectors, fitted


@torch.no_grad()
def embed_sets(model: Enhancer, folders: Sequence[Path], max_files: int | None) -> tuple[pd.DataFrame, Tensor]:
    """The files of test sets with a reference that says something (set, file, source, kind), and its vector, [n, D]."""
    tables, vectors = zip(*(_embed_set(model, folder, max_files) for folder in folders), strict=True)
    return pd.concat(tables, ignore_index=True), torch.cat(vectors)


def _embed_set(model: Enhancer, folder: Path, max_files: int | None) -> tuple[pd.DataFrame, Tensor]:
    test_set, rate = open_references(folder, model, max_files), model.settings["sample_rate"]
    rows, vectors = [], []
    for item in test_set.items:
        waveform, noisy = (
            test_set.reference(item, "disjoint", rate).waveform,
            torch.from_numpy(audio.read(item.noisy, rate)),
        )
        assert waveform is not None
        peak = noisy.abs().amax()[None].to(model.device)
        encoded = model.encode_reference(torch.from_numpy(waveform)[None].to(model.device), peak)
        if encoded.condition is not None and not encoded.is_null[0]:
            rows.append([folder.name, item.name, item.facts["source"], item.facts["kind"]])
            vectors.append(encoded.condition.vector.float().cpu())
    if not vectors:
        raise UserError(f"{folder}: all of its references are silent; build the set anew")
    return pd.DataFrame(rows, columns=["set", "file", "source", "kind"]), torch.cat(vectors)


def measure_distances(training: Tensor, familiarity: Familiarity, vectors: Tensor) -> dict[str, np.ndarray]:
    """The `DISTANCES` [m] of vectors [m, D] from those of the training [n, D].

    1 is that within which 19 of 20 training references lie.
    """
    own = nearest(training, training, NEIGHBOURS + 1)[:, 1:].mean(dim=1)  # the nearest is itself
    neighbours = nearest(vectors, training, NEIGHBOURS).mean(dim=1) / torch.quantile(own, _UNIT)
    return {"mahalanobis": familiarity.distance(vectors).numpy(), "neighbours": neighbours.numpy()}


def nearest(vectors: Tensor, others: Tensor, count: int) -> Tensor:
    """[m, count]: Euclidean distances of vectors [m, D] to the nearest of others [n, D], rising."""
    exact = torch.cdist(vectors.double(), others.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return exact.topk(min(count, len(others)), largest=False).values


def correlate(distance: np.ndarray, gain: np.ndarray, sources: Sequence[str]) -> Difference:
    """Spearman's ρ of distance and gain [n] as the mean, with its interval; files without a gain are left out.

    Files of one source of noise are alike, so sources are left out one by one (jackknife): on the scale of Fisher's
    z = artanh ρ, source i of k has the pseudo-value k z − (k − 1) z without i (Efron & Tibshirani 1993, An
    Introduction to the Bootstrap, Sec. 11.5), and these go into the interval of all means. In simulations with 8 to 40
    sources 95 to 98 % of the 95 % intervals held the truth.
    """
    known = np.isfinite(distance) & np.isfinite(gain)
    x, y, names = distance[known], gain[known], np.asarray(sources)[known]
    groups = np.unique(names)
    if len(x) < FEWEST or len(groups) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Difference(np.nan, np.nan, np.nan, np.nan, len(x), len(groups), 1)
    rho, count = spearman(x, y), len(groups)
    left_out = [_fisher_z(spearman(x[names != name], y[names != name])) for name in groups]
    pseudo = [count * _fisher_z(rho) - (count - 1) * z for z in left_out]
    found = hierarchical(pd.DataFrame({"value": pseudo, "seed": 0, "source": groups, "file": groups}))
    half = (found.high - found.low) / 2
    ends = np.tanh([_fisher_z(rho) - half, _fisher_z(rho) + half])
    return Difference(rho, float(ends[0]), float(ends[1]), found.p, len(x), count, 1)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """ρ: Pearson's correlation of the ranks of x and y [n]; NaN where one of them is the same everywhere."""
    with np.errstate(invalid="ignore"):
        return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def _fisher_z(rho: float) -> float:
    return float(np.arctanh(np.clip(rho, -_LARGEST_RHO, _LARGEST_RHO)))


def correlate_sets(table: pd.DataFrame) -> pd.DataFrame:
    """A line per distance, and per set and for all of them: distance, set, found (as of `correlate`).

    table: the columns set, source, gain and those of `DISTANCES`.
    """
    groups = [(str(name), rows) for name, rows in table.groupby("set", sort=False)]
    if len(groups) > 1:
        groups.append(("all", table))
    lines = [
        [distance, name, correlate(rows[distance].to_numpy(float), rows["gain"].to_numpy(float), list(rows["source"]))]
        for distance in DISTANCES
        for name, rows in groups
    ]
    return pd.DataFrame(lines, columns=["distance", "set", "found"])


def judge_coverage(found: Difference) -> str:
    """What a correlation says about the coverage theory, in a sentence."""
    if not found.is_known:
        return f"coverage cannot be judged: {found.n_files} files with different gains from several sources are too few"
    interval = f"{found.mean:+.2f} [{found.low:+.2f}, {found.high:+.2f}]"
    numbers = f"Spearman's ρ of distance and gain is {interval} over {found.n_files} files"
    if found.high < 0:
        return f"the coverage theory holds for this encoder: the farther a reference, the smaller its gain; {numbers}"
    if found.low > 0:
        return f"the coverage theory is contradicted: the farther a reference, the larger its gain; {numbers}"
    return f"the coverage theory is not decidable here, the interval holds 0; {numbers}"


def describe_distances(table: pd.DataFrame) -> str:
    """Per set, how far its references are; a training reference is beyond 1 in 1 of 20 cases."""
    lines = [f"{'set':20}  files  median distance: {', '.join(DISTANCES)}; beyond 1"]
    for name, rows in table.groupby("set", sort=False):
        middle, beyond = rows[[*DISTANCES]].median(), (rows[[*DISTANCES]] > 1).mean()
        shown = "   ".join(f"{middle[distance]:.2f}, {beyond[distance]:.0%}" for distance in DISTANCES)
        lines.append(f"{name!s:20}  {len(rows):5}  {shown}")
    return "\n".join(lines)


def write_distances(
    model: Enhancer, references: Sequence[Tensor], table: pd.DataFrame, vectors: Tensor, out: Path
) -> pd.DataFrame:
    """Write map.png and coverage.csv. Returns the table of `embed_sets` with the `DISTANCES` from the training."""
    training, familiarity = embed_training(model, references)
    table = table.assign(**measure_distances(training, familiarity, vectors))
    draw_map(training.numpy(), table, vectors.numpy(), out / "map.png")
    write_csv(table, out / "coverage.csv")
    return table


def write_gains(table: pd.DataFrame, what: str, out: Path) -> str:
    """Write coverage.csv anew, with the gains, and distance.png. Returns what each distance says about them.

    what: the gain is, in words.
    """
    lines = correlate_sets(table)
    write_csv(table, out / "coverage.csv")
    draw_distances(table, lines, what, out / "distance.png")
    text = []
    for distance, rows in lines.groupby("distance", sort=False):
        text.append(f"\n{DISTANCES[str(distance)]} and gain ({what})")
        text += [f"{name}: {judge_coverage(found)}" for name, found in zip(rows["set"], rows["found"], strict=True)]
    return "\n".join(text)


def draw_map(training: np.ndarray, table: pd.DataFrame, vectors: np.ndarray, path: Path) -> None:
    """Training references [n, D] in grey below those of the sets [m, D], whose rows `table` (set, kind) describes."""
    figure = Figure(figsize=(13, 6), dpi=110, layout="constrained")
    together = np.concatenate([training, vectors])
    principal = PCA(2, random_state=0).fit(together)
    title = f"PCA, {principal.explained_variance_ratio_.sum():.0%} of the variance"
    perplexity = min(_PERPLEXITY, (len(together) - 1) / 3)
    neighbours = TSNE(2, perplexity=perplexity, init="pca", random_state=0).fit_transform(together)
    maps = {title: principal.transform(together), "t-SNE": neighbours}
    for axes, (title, places) in zip(figure.subplots(1, 2), maps.items(), strict=True):
        known, new = places[: len(training)], places[len(training) :]
        axes.plot(*known.T, "o", color="0.72", ms=4, label=f"training, {len(training)} references", zorder=1)
        for place, (name, rows) in enumerate(table.reset_index(drop=True).groupby("set", sort=False)):
            look = {"color": f"C{place}", "marker": MARKERS[place % len(MARKERS)]}
            axes.plot(*new[rows.index].T, ls="", ms=5.5, mec="white", mew=0.4, label=str(name), zorder=2, **look)
            _label_kinds(axes, rows, new, f"C{place}")
        axes.set_title(title, fontsize=11)
        axes.set(xticks=[], yticks=[])
    figure.axes[0].legend(frameon=False, fontsize=9)
    save_figure(figure, path)


def _label_kinds(axes: Axes, rows: pd.DataFrame, places: np.ndarray, colour: str) -> None:
    """The name of each kind of noise at the middle of its references, where there are few kinds."""
    kinds = [kind for kind in rows["kind"].unique() if kind]
    for kind in kinds if len(kinds) <= _KINDS_NAMED else ():
        x, y = np.median(places[rows.index[rows["kind"] == kind]], axis=0)
        text = axes.text(x, y, kind, fontsize=7.5, color=colour, ha="center", va="bottom", zorder=3)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])  # readable over the points


def draw_distances(table: pd.DataFrame, lines: pd.DataFrame, gain: str, path: Path) -> None:
    """Gain over each distance, a point per file; lines of `correlate_sets` say how they go together."""
    figure = Figure(figsize=(12, 4.6), dpi=110, layout="constrained")
    for axes, (distance, title) in zip(figure.subplots(1, len(DISTANCES), sharey=True), DISTANCES.items(), strict=True):
        found = lines[lines["distance"] == distance].set_index("set")["found"]
        for place, (name, rows) in enumerate(table.groupby("set", sort=False)):
            one = found[str(name)]
            look = {"color": f"C{place}", "marker": MARKERS[place % len(MARKERS)]}
            label = f"{name}: ρ {one.mean:+.2f} [{one.low:+.2f}, {one.high:+.2f}]"
            axes.plot(rows[distance], rows["gain"], ls="", ms=5, alpha=0.8, label=label, **look)
        axes.axhline(0, color="0.6", lw=1, zorder=0)
        axes.axvline(1, color="0.6", lw=1, ls=(0, (6, 3)), zorder=0)
        axes.set(xlabel=f"{title} (1: 19 of 20 training references lie within)")
        axes.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0, 1), borderpad=0)  # beside no point
        bare_axes(axes)
    figure.axes[0].set(ylabel=f"gain in PESQ, {gain}")
    save_figure(figure, path)
