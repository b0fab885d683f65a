"""How far test references lie from those of the training, as the encoder hears them, and what that does to the gain.

The coverage theory: the score network sees every diffusion time in training, but the noise embedding only where the
training noise put it. A reference that lands elsewhere should then help less. So the theory predicts a negative rank
correlation between the distance and the gain of each file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.stats import rankdata
from torch import Tensor
from tqdm import tqdm

from sgmse.common.errors import UserError
from sgmse.data import audio, corpora
from sgmse.diagnostics.items import manifest_rows, open_references
from sgmse.diffusion import adaptive as familiarity
from sgmse.diffusion.adaptive import Familiarity
from sgmse.model.datamodule import build_datamodule
from sgmse.model.enhancer import Enhancer
from sgmse.settings import cli
from sgmse.settings.checks import check_data
from sgmse.settings.config import TRAIN_GROUPS, DataConfig, ModelConfig, TrainConfig

NEIGHBOURS = 5
FEWEST = 8  # files with a gain, below which a rank correlation says nothing
DISTANCES = {"mahalanobis": "Mahalanobis distance", "neighbours": f"distance of the {NEIGHBOURS} nearest neighbours"}
_DRAWS = 2000
_UNIT = 0.95  # quantile of the training references' own distances; as in `familiarity`


@dataclass(frozen=True)
class Training:
    """The training references: vectors [n, D], and the Gaussian around them that adaptive guidance uses too."""

    vectors: Tensor
    familiarity: Familiarity


@dataclass(frozen=True)
class Correlation:
    """Spearman's ρ with its 95 % interval; NaN where it is not defined."""

    rho: float
    low: float
    high: float
    n_files: int


def training_references(model: Enhancer, config: Path, noise_dirs: Sequence[str]) -> list[Tensor]:
    """The first `familiarity.NUM_REFERENCES` references [M] that a training with the settings of `config` draws.

    The same as those which a validation of that training takes. noise_dirs: noise instead of that of the settings.
    """
    values = cli.parse(cli.make_parser(TRAIN_GROUPS, ""), ["--config", str(config)])[-1].values
    if noise_dirs:
        if values["base_dir"] is not None:
            raise UserError(f"{config}: trains on pairs, whose noise cannot be replaced by --train {noise_dirs[0]}")
        values["noise_dir"] = list(noise_dirs)
        values["speech_dir"] = values["speech_dir"] or [
            str(corpora.embedded_dir() / "speech")
        ]  # what it was mixed with
    settings, data = cli.take(ModelConfig, model.settings), cli.take(DataConfig, values)
    check_data(data, settings)
    drawn = build_datamodule(data, settings, cli.take(TrainConfig, values).seed).train
    keys = tqdm(range(familiarity.NUM_REFERENCES), desc="training references", unit="item", disable=None)
    return [reference for key in keys if len(reference := drawn[key]["reference"])]


def hear_training(model: Enhancer, references: Sequence[Tensor]) -> Training:
    """Raises `UserError` where the encoder tells too little apart for distances."""
    vectors = familiarity.embedded(model.encode, references, model.device)
    fitted = familiarity.of_vectors(vectors)
    if vectors is None or fitted is None:
        raise UserError(
            f"of the training items {len(references)} have a reference, which is too few, or the encoder hears no "
            "difference between them; name other settings with --train"
        )
    return Training(vectors, fitted)


@torch.no_grad()
def hear_set(model: Enhancer, folder: Path, max_files: int | None) -> tuple[pd.DataFrame, Tensor]:
    """The files of a set with a reference that says something (set, file, source, kind), and its vector, [n, D]."""
    files = open_references(folder, model, max_files).files
    rate, rows, vectors = model.settings["sample_rate"], [], []
    described = manifest_rows(folder, files.names)
    for job, name, row in zip(files.jobs, files.names, described, strict=True):
        assert job.reference is not None
        noisy, reference = (torch.from_numpy(audio.read(path, rate)) for path in (job.noisy, job.reference))
        encoded = model.encode_reference(reference[None].to(model.device), noisy.abs().amax()[None].to(model.device))
        if encoded.condition is not None and not encoded.is_null[0]:
            rows.append([folder.name, name, row.get("source") or row.get("noise") or name, row.get("kind") or ""])
            vectors.append(encoded.condition.vector.float().cpu())
    if not vectors:
        raise UserError(f"{folder}: all of its references are silent; build the set anew")
    return pd.DataFrame(rows, columns=["set", "file", "source", "kind"]), torch.cat(vectors)


def distances(training: Training, vectors: Tensor) -> dict[str, np.ndarray]:
    """The `DISTANCES` [m] of vectors [m, D]; 1 is that within which 19 of 20 training references lie."""
    own = nearest(training.vectors, training.vectors, NEIGHBOURS + 1)[:, 1:].mean(dim=1)  # the nearest is itself
    found = nearest(vectors, training.vectors, NEIGHBOURS).mean(dim=1) / torch.quantile(own, _UNIT)
    return {"mahalanobis": training.familiarity.distance(vectors).numpy(), "neighbours": found.numpy()}


def nearest(vectors: Tensor, others: Tensor, count: int) -> Tensor:
    """[m, count]: Euclidean distances of vectors [m, D] to the nearest of others [n, D], rising."""
    exact = torch.cdist(vectors.double(), others.double(), compute_mode="donot_use_mm_for_euclid_dist")
    return exact.topk(min(count, len(others)), largest=False).values


def correlation(distance: np.ndarray, gain: np.ndarray, sources: Sequence[str], seed: int = 0) -> Correlation:
    """Spearman's ρ of distance and gain [n]; percentiles of the bootstrap over the sources [n] of the noise.

    Files of one source are alike, so they are drawn together. Files without a gain are left out.
    """
    known = np.isfinite(distance) & np.isfinite(gain)
    x, y, names = distance[known], gain[known], np.asarray(sources)[known]
    if len(x) < FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return Correlation(np.nan, np.nan, np.nan, len(x))
    members = [np.flatnonzero(names == name) for name in np.unique(names)]
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(_DRAWS):
        picked = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        if np.ptp(x[picked]) > 0 and np.ptp(y[picked]) > 0:
            drawn.append(spearman(x[picked], y[picked]))
    low, high = np.percentile(drawn, [2.5, 97.5]) if len(members) > 1 else (np.nan, np.nan)
    return Correlation(spearman(x, y), float(low), float(high), len(x))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """ρ: Pearson's correlation of the ranks of x and y [n]; scipy's own is slow for the many draws of a bootstrap."""
    return float(np.corrcoef(rankdata(x), rankdata(y))[0, 1])


def correlations(table: pd.DataFrame) -> pd.DataFrame:
    """A line per distance, and per set and for all of them: distance, set, rho, low, high, files.

    table: the columns set, source, gain and those of `DISTANCES`.
    """
    groups = [(name, rows) for name, rows in table.groupby("set", sort=False)]
    if len(groups) > 1:
        groups.append(("all", table))
    lines = []
    for distance in DISTANCES:
        for name, rows in groups:
            found = correlation(rows[distance].to_numpy(float), rows["gain"].to_numpy(float), rows["source"].tolist())
            line = {"distance": distance, "set": name, "rho": found.rho, "low": found.low, "high": found.high}
            lines.append(line | {"files": found.n_files})
    return pd.DataFrame(lines)


def verdict(line: Correlation) -> str:
    """What a correlation says about the coverage theory, in a sentence."""
    if np.isnan(line.low):
        return f"coverage cannot be judged: {line.n_files} files with different gains from several sources are too few"
    interval = f"{line.rho:+.2f} [{line.low:+.2f}, {line.high:+.2f}]"
    found = f"Spearman's ρ of distance and gain is {interval} over {line.n_files} files"
    if line.high < 0:
        return f"the coverage theory holds for this encoder: the farther a reference, the smaller its gain; {found}"
    if line.low > 0:
        return f"the coverage theory is contradicted: the farther a reference, the larger its gain; {found}"
    return f"the coverage theory is not decidable here, the interval holds 0; {found}"
