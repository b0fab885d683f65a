"""Enhances a test set under every reference protocol, with models and baselines, and scores it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from sgmse.common.errors import UserError
from sgmse.common.files import write_csv
from sgmse.diagnostics.differences import BASELINE
from sgmse.diagnostics.subjects import Subject
from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.enhancement.engine import Engine, enhance_and_score, score_noisy
from sgmse.enhancement.lookup import check_inputs, open_all_protocols
from sgmse.enhancement.protocols import PROTOCOLS, Protocol
from sgmse.enhancement.settings import Setting
from sgmse.enhancement.test_set import TestSet
from sgmse.evaluation import metrics
from sgmse.evaluation.results import NOISY, Results
from sgmse.evaluation.scores import Score
from sgmse.model.enhancer import Enhancer
from sgmse.settings.checks import check_sampler

KEY = ["checkpoint", "system"]
COLUMNS = [*KEY, "seed", "file", "kind", "source", "snr_db", *metrics.MAIN, "reason"]
COLUMNS += ["leak", "leak_shared", "nfe", "passes", "guidance_scale", "N"]
_TYPES = dict.fromkeys(("snr_db", *metrics.MAIN, "leak", "guidance_scale"), "float")
_TYPES |= {"seed": "Int64", "leak_shared": "boolean", "nfe": "int", "passes": "int", "N": "int"}
# scores.csv has called two of the protocols so from the start; readers of older and of newer ones find the same words
FILE_WORDS = {"disjoint": "matched", "none": "null"}


@dataclass(frozen=True)
class Use:
    """What a test set is enhanced with.

    Args:
        num_steps: of the samplers; None: as stored in each checkpoint.
        seed: drives sampling, cutting and shuffling.
    """

    test_set: TestSet
    num_steps: int | None
    guidance_scale: float
    batch_size: int
    seed: int
    jobs: int

    def setting(self, subject: Subject, protocol: Protocol, guidance_scale: float) -> Setting:
        """Raises `UserError` where the sampler of a checkpoint cannot take so many steps."""
        model = subject.model
        sampler = model.sampler if self.num_steps is None else replace(model.sampler, N=self.num_steps)
        check_sampler(sampler, model.objective.name)
        return Setting(sampler, GuidanceSettings(guidance_scale=guidance_scale), protocol, self.seed)

    def settings(self, subject: Subject) -> list[Setting]:
        """A setting per protocol that can run; for a model that takes no reference the one without."""
        if subject.model.encoder is None:
            return [self.setting(subject, "none", 1.0)]
        return [
            self.setting(subject, protocol, 0.0 if protocol == "none" else self.guidance_scale)
            for protocol in self.test_set.runnable
        ]

    def run(self, subjects: Sequence[Subject], device: str, results: Results, score: Score) -> None:
        """Enhance and score what is not there yet: the noisy files, models under each protocol, and baselines."""
        score_noisy(self.test_set, results, score)
        rate = subjects[0].model.settings["sample_rate"]
        for protocol in self.test_set.runnable:
            if not results.files("", f"leak {protocol}"):
                leaks = self.test_set.leaks(protocol, rate, self.seed, self.jobs)
                results.add(
                    {"checkpoint": "", "setting": f"leak {protocol}", "protocol": protocol, "file": name}
                    | {"leak": round(leak.peak, 4), "leak_shared": leak.shared}
                    for name, leak in leaks.items()
                )
        for subject in subjects:
            engine = Engine(subject.model.to(device), self.batch_size)
            enhance_and_score(engine, self.test_set, self.settings(subject), results, score)
            subject.model.cpu()

    def collect_scores(self, subjects: Sequence[Subject], results: Results) -> pd.DataFrame:
        """`COLUMNS`: the rows of the noisy files and of these checkpoints under these settings.

        Files that have no reference under a protocol, or a silent one, have no row there. system: the protocol,
        "baseline" or "noisy".
        """
        rows = results.frame()
        is_leak = rows["setting"].str.startswith("leak ")
        leaks = rows.loc[is_leak, ["protocol", "file", "leak", "leak_shared"]]
        systems = {("", NOISY): NOISY}
        for subject in subjects:
            for one in self.settings(subject):
                systems[subject.model.checkpoint_sha256, one.key] = one.protocol if subject.model.encoder else BASELINE
        keys = pd.Series(list(zip(rows["checkpoint"], rows["setting"], strict=True)))
        rows = rows.drop(columns=["leak", "leak_shared"]).assign(system=keys.map(systems))
        rows = rows[rows["system"].notna()]
        needs_reference = ~rows["system"].isin([NOISY, BASELINE, "none"])
        rows = rows[~(needs_reference & rows["is_null"].astype(bool))]
        # in the order of `systems`, whenever each was done; files as the networks got them, also the noisy ones
        files = {name: place for place, name in enumerate(rows.loc[rows["system"] != NOISY, "file"].unique())}
        order = {system: place for place, system in enumerate(systems)}
        rows = rows.assign(place=keys.map(order), rank=rows["file"].map(files)).sort_values(["place", "rank"])
        rows = rows.merge(leaks, "left", left_on=["system", "file"], right_on=["protocol", "file"])
        seeds = {subject.model.checkpoint_sha256: subject.seed for subject in subjects}
        return rows.assign(seed=rows["checkpoint"].map(seeds))[COLUMNS].astype(_TYPES)


def open_set(folder: Path, model: Enhancer, max_files: int | None) -> TestSet:
    """A test set with the references of all protocols that can run on it with a model, all files checked."""
    if not (folder / "noisy").is_dir() or not (folder / "clean").is_dir():
        raise UserError(f"{folder}: holds no noisy/ and clean/ to enhance and score; name a test set")
    test_set = open_all_protocols(folder, max_files)
    for protocol in (name for name in PROTOCOLS if name == "none" or name in test_set.paths):
        check_inputs(test_set, test_set.items, protocol, model.settings["n_fft"], model.settings["sample_rate"])
    for item in test_set.items:
        item.facts  # noqa: B018, refuses what the manifest cannot mean before any work
    if model.cond_drop_prob == 0:
        reason = "the model was trained without dropping references, so it knows no null"
        test_set = replace(test_set, refused=test_set.refused | {"none": reason})
    return test_set


def describe_refused(test_set: TestSet, has_baseline: bool) -> list[str]:
    """Which protocols do not run, or not for every file, and why."""
    lines = [f"{FILE_WORDS.get(name, name)} does not run: {reason}" for name, reason in test_set.refused.items()]
    for name, paths in test_set.paths.items():
        found, count = sum(paths[item.name] is not None for item in test_set.items), len(test_set.items)
        if found < count:
            lines.append(f"{FILE_WORDS.get(name, name)} runs for {found} of {count} files, the others have no match")
    return lines if has_baseline else [*lines, "no baseline runs: name one with --baseline"]


def write_scores(frame: pd.DataFrame, path: Path) -> None:
    write_csv(frame.assign(system=frame["system"].replace(FILE_WORDS)), path)


def read_scores(path: Path) -> pd.DataFrame:
    """The table that `write_scores` wrote. Raises `UserError` for any other one."""
    types = dict.fromkeys(COLUMNS, "str") | _TYPES
    try:
        frame = pd.read_csv(path, dtype=types, keep_default_na=False, na_values={name: [""] for name in _TYPES})
    except (OSError, ValueError):
        raise UserError(f"{path}: cannot be read as a CSV table; let scripts/reference_use.py write it anew") from None
    if list(frame.columns) != COLUMNS:
        raise UserError(f"{path}: has other columns than scripts/reference_use.py writes; let it write the table anew")
    if frame.duplicated([*KEY, "file"]).any():
        raise UserError(f"{path}: holds a file twice; let scripts/reference_use.py write it anew")
    return frame.assign(system=frame["system"].replace({word: name for name, word in FILE_WORDS.items()}))
