"""The listening page: utterances from the best to the worst, each clean, noisy, with its reference, and as enhanced."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

import pandas as pd

from sgmse.common.progress import track
from sgmse.data.containers import FORMATS
from sgmse.data.testsets.build import folder_of
from sgmse.evaluation.listening import (
    CLEAN,
    choose_items,
    describe_rank,
    describe_scores,
    estimate_bytes,
    write_versions,
)
from sgmse.evaluation.metrics import FIRST, MAIN
from sgmse.evaluation.page import listening_data
from sgmse.evaluation.results import NOISY
from sgmse.experiments.results import Run

EXCERPT_S = 4.0  # of an utterance
MOST_ITEMS = 12  # utterances per set, unless more are asked for
MOST_BYTES = 47_000_000  # of their sounds and pictures, so that the whole page stays below 50 MB


def write_items(run: Run, seed: int, out: Path, max_items: int | None) -> dict[str, Any]:
    """Draw the pictures and write the sounds of utterances of every set into `out`/media.

    max_items: per set; None for as many as fit into `MOST_BYTES`, at most `MOST_ITEMS`. Returns what the page's script
    reads; without "items" nothing enhanced was found.
    """
    shown = run.enhanced[run.enhanced["seed"] == seed]
    experiments = list(shown["experiment"].drop_duplicates())
    if not experiments:
        return {"items": []}
    max_items = max_items or count_items(shown)
    conditioned = [name for name in experiments if run.plan.experiments[name].baseline]
    default = (conditioned or experiments)[0]
    chosen = []
    for name in shown["set"].drop_duplicates():
        own = shown[shown["set"] == name]
        ranked_by = next(e for e in (default, *conditioned, *experiments) if e in set(own["experiment"]))
        files = choose_items(_gains(run, own, ranked_by).dropna(), max_items)
        chosen += [(str(name), place, own[own["file"] == file]) for place, file in enumerate(files)]
    items = []
    for name, place, rows in track(chosen, len(chosen), "spectrograms", "row"):
        item = _write_item(run, rows, name, seed, out, f"media/{name}/{place:03d}")
        items += [item] if item else []
    rank = describe_rank(FIRST, is_difference=True) | {"decimals": 2}
    return listening_data(items, _list_views(run, experiments, seed), rank, default=default, seed=seed)


def count_items(enhanced: pd.DataFrame) -> int:
    """How many utterances of each set fit into `MOST_BYTES`, of the `enhanced` files of one seed."""
    versions = enhanced.drop_duplicates(["set", "experiment"]).groupby("set")["reference"].agg(["size", "nunique"])
    panels = int(versions.sum().sum()) + 2 * len(versions)  # clean and noisy
    return max(1, min(MOST_ITEMS, int(MOST_BYTES / (panels * estimate_bytes(EXCERPT_S)))))


def _gains(run: Run, rows: pd.DataFrame, experiment: str) -> pd.Series:
    """The score of an experiment minus that of its baseline, or of the noisy files where that was not run; by file."""
    before = rows[rows["experiment"] == run.plan.experiments[experiment].baseline]
    if before.empty:
        before = run.noisy[run.noisy["set"] == rows["set"].iloc[0]]
    own, other = (some.set_index("file")[FIRST] for some in (rows[rows["experiment"] == experiment], before))
    return own - other


def _write_item(run: Run, rows: pd.DataFrame, set_name: str, seed: int, out: Path, stem: str) -> dict[str, Any] | None:
    """Write the pictures and sounds of a file. `rows`: its scores, one per experiment.

    None where its clean or its noisy sound is not there.
    """
    file, folder = rows["file"].iloc[0], run.folder / "sets" / set_name
    noisy = run.noisy[(run.noisy["set"] == set_name) & (run.noisy["file"] == file)]
    folders = {CLEAN: folder / "clean", NOISY: folder / "noisy"}
    folders |= {_reference(protocol): folder / folder_of(protocol) for protocol in rows["reference"]}
    folders |= {name: run.folder / "enhanced" / name / f"seed{seed}" / set_name for name in rows["experiment"]}
    sounds = {
        name: path
        for name, where in folders.items()
        for path in where.glob(f"{glob.escape(file)}.*")  # to list whole folders for each file would take long
        if path.suffix.lower() in FORMATS and path.stem == Path(file).name
    }
    if not {CLEAN, NOISY} <= sounds.keys():
        return None
    item = write_versions(out, stem, sounds, EXCERPT_S)
    scores = {row["experiment"]: row for _, row in pd.concat([noisy, rows]).iterrows()}
    for name, panel in item["panels"].items():
        panel |= describe_scores(scores.get(name), MAIN, FIRST)
    facts = (noisy if len(noisy) else rows).iloc[0]
    kind = "" if pd.isna(facts["kind"]) else str(facts["kind"])
    snr = None if pd.isna(facts["snr_db"]) else float(facts["snr_db"])
    return {"set": set_name, "file": str(file), "kind": kind, "snr": snr, **item}


def _reference(protocol: object) -> str:
    """The column of the references under a protocol; those made from the noisy file itself have no folder."""
    return f"reference {protocol}"


def _list_views(run: Run, experiments: list[str], seed: int) -> list[dict[str, Any]]:
    """The experiments that can be chosen on the page, each with its baseline and what is to be known of it."""
    pesq = {name: run.choices[name, seed]["pesq"] for name in experiments if (name, seed) in run.choices}
    best = max((name for name in pesq if run.plan.experiments[name].baseline), key=pesq.__getitem__, default=None)
    found = []
    for name in experiments:
        baseline = run.plan.experiments[name].baseline
        remarks = ["best on validation"] if name == best else []
        remarks += ["smoke: random encoder"] if name in run.smoke else []
        label = f"{name} against {baseline}" if baseline else f"{name}, no reference"
        label += f" ({'; '.join(remarks)})" if remarks else ""
        column = _reference(run.enhanced.loc[run.enhanced["experiment"] == name, "reference"].iloc[0])
        systems = [baseline, name] if baseline else [name]
        found.append(
            {"id": name, "label": label, "systems": systems, "against": baseline or NOISY, "reference": column}
        )
    return found
