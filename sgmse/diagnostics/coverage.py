"""How far test references lie from those of the training, as the encoder hears them, and what that does to the gain.

The coverage theory: the score network sees every diffusion time in training, but the noise embedding only where the
training noise put it. A reference that lands elsewhere should then help less. So the theory predicts a negative rank
correlation between the distance and the gain of each file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from sgmse.common.errors import UserError
from sgmse.common.files import read_table
from sgmse.common.lock import locked_folder
from sgmse.common.progress import track
from sgmse.data import audio, corpora
from sgmse.data.containers import FORMATS
from sgmse.diagnostics.items import open_references
from sgmse.diffusion import adaptive
from sgmse.diffusion.adaptive import Familiarity
from sgmse.enhancement.engine import Engine, enhance_and_score
from sgmse.enhancement.settings import Setting
from sgmse.evaluation.results import Results
from sgmse.evaluation.scores import scorer
from sgmse.evaluation.statistics import Difference, hierarchical
from sgmse.model.enhancer import Enhancer
from sgmse.model.pretrained import find_model, run_folder
from sgmse.settings import cli
from sgmse.settings.checks import check_data
from sgmse.settings.config import TRAIN_GROUPS, DataConfig, ModelConfig, TrainConfig
from sgmse.training.datamodule import build_datamodule
from sgmse.training.resumption import SETTINGS

NEIGHBOURS = 5
FEWEST = 8  # files with a gain, below which a rank correlation says nothing
DISTANCES = {"mahalanobis": "Mahalanobis distance", "neighbours": f"distance of the {NEIGHBOURS} nearest neighbours"}
_UNIT = 0.95  # quantile of the training references' own distances; as in `adaptive`
_LARGEST_RHO = 0.999  # Fisher's z of 1 is infinite
_SYSTEM = ("experiment", "system")  # columns that name systems, the most telling first
_USUAL = (("matched", "baseline"), ("matched", "null"))


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
    config = files[0] if files else run_folder(find_model(ckpt)) / SETTINGS
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
    number = adaptive.NUM_REFERENCES
    keys = track(range(number), number, "training references", "item")
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


def embed_set(model: Enhancer, folder: Path, max_files: int | None) -> tuple[pd.DataFrame, Tensor]:
    """The files of a set with a reference that says something (set, file, source, kind), and its vector, [n, D]."""
    test_set, rate = open_references(folder, model, max_files), model.settings["sample_rate"]
    rows, vectors = [], []
    for item in test_set.items:
        waveform = test_set.reference(item, "disjoint", rate).waveform
        assert waveform is not None
        peak = torch.from_numpy(audio.read(item.noisy, rate)).abs().amax()[None].to(model.device)
        encoded = model.encode_reference(torch.from_numpy(waveform)[None].to(model.device), peak)
        if encoded.condition is not None and not encoded.is_null[0]:
            rows.append([folder.name, item.name, item.facts["source"], item.facts["kind"]])
            vectors.append(encoded.condition.vector.detach().float().cpu())
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


def read_gains(path: Path, pair: Sequence[str], sets: Sequence[str]) -> tuple[pd.Series, str]:
    """Gains in PESQ by (set, file without its suffix) out of a CSV table: file, pesq and a column that names systems.

    Args:
        pair: the two systems whose difference is the gain; empty: matched − baseline, else matched − null.
        sets: a table without a column `set` is of the only one.

    Returns:
        The gains, means over seeds, and what they are.
    """
    remedy, names = "name a table of scores, as scripts/reference_use.py writes", ("set", "file", *_SYSTEM)
    # else a system that is called null would be none, and the file 007 would be 7
    table = read_table(path, ["file", "pesq"], remedy, keep_default_na=False, dtype=dict.fromkeys(names, str))
    column = next((name for name in _SYSTEM if name in table), None)
    if column is None:
        raise UserError(f"{path}: has no column {_SYSTEM[-1]}; {remedy}")
    if "set" not in table:
        if len(sets) > 1:
            raise UserError(f"{path}: has no column set that tells {', '.join(sets)} apart; give one --test_dir")
        table["set"] = sets[0]
    there = set(table[column])
    chosen = tuple(pair) or next((two for two in _USUAL if there.issuperset(two)), ())
    if len(set(chosen)) != 2 or len(chosen) != 2 or not there.issuperset(chosen):
        raise UserError(f"{path}: name two of its systems with --gain; there are {', '.join(sorted(there))}")
    table["pesq"] = pd.to_numeric(table["pesq"], errors="coerce")  # empty where it could not be scored
    return _subtract(table, column, *chosen), f"{chosen[0]} − {chosen[1]}"


def measure_gains(
    model: Enhancer,
    baseline: Enhancer,
    folders: Sequence[Path],
    out: Path,
    max_files: int | None,
    batch_size: int,
    jobs: int,
) -> pd.Series:
    """PESQ of the model with the references of test sets minus that of the baseline, by (set, file without its suffix).

    Both take one draw of their own sampler. Scores are kept below `out`; what is there is not done again.
    """
    tables = []
    systems = {model.checkpoint_sha256: "model", baseline.checkpoint_sha256: "baseline"}
    with scorer(jobs) as score:
        for folder in folders:
            test_set = open_references(folder, model, max_files)
            shared = {"test_set": test_set.fingerprint(), "batch_size": batch_size, "device": str(model.device)}
            ours, theirs = Setting(model.sampler), Setting(baseline.sampler, protocol="none")
            with locked_folder(out / "scores" / folder.name, "filled"):
                results = Results(out / "scores" / folder.name, shared)
                enhance_and_score(Engine(model, batch_size), test_set, [ours], results, score)
                enhance_and_score(Engine(baseline, batch_size), test_set, [theirs], results, score)
                results.write_csv(results.folder / "scores.csv")
                rows = results.frame()
            rows = rows[rows["setting"].isin([ours.key, theirs.key])]
            tables.append(rows.assign(set=folder.name, system=rows["checkpoint"].map(systems)))
    return _subtract(pd.concat(tables), "system", "model", "baseline")


def _subtract(table: pd.DataFrame, column: str, first: str, second: str) -> pd.Series:
    """By (set, file without its suffix) the PESQ of one system minus that of another, each a mean over seeds."""
    keys = [table["set"], _without_suffix(table["file"])]
    pesq = table.groupby([table[column], *keys])["pesq"].mean()
    return (pesq[first] - pesq[second]).dropna()


def match_gains(gains: pd.Series, table: pd.DataFrame) -> pd.Series:
    """The gain of each row of a table with `set` and `file`; NaN where there is none."""
    keys = pd.MultiIndex.from_arrays([table["set"], _without_suffix(table["file"])])
    return pd.Series(gains.reindex(keys).to_numpy(float), index=table.index)


def _without_suffix(names: pd.Series) -> pd.Series:
    """File names as `evaluate.py --csv` writes them; what follows another dot belongs to the name."""
    split = names.map(os.path.splitext)
    return split.map(lambda parts: parts[0] if parts[1].lower() in FORMATS else "".join(parts))


def correlate(distance: np.ndarray, gain: np.ndarray, sources: Sequence[str]) -> Difference:
    """Spearman's ρ of distance and gain [n] as the mean, with its interval; files without a gain are left out.

    Files of one source of noise are alike, so sources are left out one by one (jackknife): on the scale of Fisher's
    z = artanh ρ, source i of k has the pseudo-value k z − (k − 1) z without i (Efron & Tibshirani 1993, An
    Introduction to the Bootstrap, Sec. 11.5), and these go into the interval of all means. In simulations with 8 to 40
    sources 95 to 98 % of the 95 % intervals held the truth.
    """
    table = pd.DataFrame({"distance": distance, "gain": gain, "source": list(sources)}).dropna()
    groups = table["source"].unique()
    count = len(groups)
    if len(table) < FEWEST or count < 3 or table["distance"].nunique() == 1 or table["gain"].nunique() == 1:
        return Difference(np.nan, np.nan, np.nan, np.nan, len(table), count, 1)
    whole = _fisher_z(table)
    pseudo = [count * whole - (count - 1) * _fisher_z(table[table["source"] != name]) for name in groups]
    found = hierarchical(pd.DataFrame({"value": pseudo, "seed": 0, "source": groups, "file": groups}))
    half = (found.high - found.low) / 2
    low, high = np.tanh([whole - half, whole + half]).tolist()
    return Difference(_spearman(table), low, high, found.p, len(table), count, 1)


def _spearman(table: pd.DataFrame) -> float:
    return table["distance"].corr(table["gain"], "spearman")


def _fisher_z(table: pd.DataFrame) -> float:
    return float(np.arctanh(np.clip(_spearman(table), -_LARGEST_RHO, _LARGEST_RHO)))


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


def describe_correlations(lines: pd.DataFrame, what: str) -> str:
    """What each distance says about the gain (`what` it is, in words), from the lines of `correlate_sets`."""
    text = []
    for distance, rows in lines.groupby("distance", sort=False):
        text.append(f"\n{DISTANCES[str(distance)]} and gain ({what})")
        text += [f"{name}: {judge_coverage(found)}" for name, found in zip(rows["set"], rows["found"], strict=True)]
    return "\n".join(text)
