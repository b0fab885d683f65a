"""The files on the page of a set: which ones are shown, their pictures, sounds and scores, and a table of all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sgmse.common.progress import track
from sgmse.data import audio, listing
from sgmse.evaluation import figures, listening, scores
from sgmse.evaluation.listening import CLEAN, REFERENCE, heading
from sgmse.evaluation.page import listening_data
from sgmse.evaluation.results import NOISY
from sgmse.evaluation.scores import REMOVED


def write_files(
    out: Path,
    frame: pd.DataFrame,
    folders: Mapping[str, Path],
    shown: Sequence[str],
    max_items: int,
    excerpt_s: float,
) -> dict[str, Any]:
    """Write pictures and sounds of some files into `out`/media, and figure.png. Returns what the page's script reads.

    Args:
        frame: see `set_page.write_page`.
        folders: of clean, noisy and reference files, as far as there are, and of the systems.
        shown: metrics that have values; the first one ranks the files.
        max_items, excerpt_s: so many files, so much of each.
    """
    systems = [name for name in folders if name not in (CLEAN, NOISY, REFERENCE)]
    originals = folders.get(CLEAN) or folders[NOISY]
    versions = _match_versions(originals, folders)
    names = list(frame["system"].unique())
    removed = [REMOVED] if REMOVED in frame else []
    ranking = [*shown, *removed][0]
    by_system = frame.pivot(index="file", columns="system", values=ranking)
    gains = by_system[names[-1]] - (by_system[NOISY] if NOISY in by_system and len(names) > 1 else 0)
    facts = scores.find_facts(originals, frame["file"])
    items = []
    gains = gains.dropna() if gains.notna().any() else gains  # a file without a score has no rank
    chosen = listening.choose_items(gains, max_items)
    for place, file in enumerate(track(chosen, len(chosen), "spectrograms", "row")):
        sounds = {name: paths[file] for name, paths in versions.items() if file in paths}
        removed_by = systems if NOISY in versions else []
        item = listening.write_versions(out, f"media/{place:03d}", sounds, excerpt_s, removed_by)
        rows = {row["system"]: row for _, row in frame[frame["file"] == file].iterrows()}
        for name, panel in item["panels"].items():
            panel |= listening.describe_scores(rows.get(name), [*figures.drawn_metrics(shown), *removed], ranking)
        items.append({"set": "", "file": file, **facts[file], **item})
    median = gains.sort_values(kind="stable").index[len(gains) // 2]
    _draw_figure(out, str(median), versions, frame, shown, excerpt_s)
    views = listening.make_views(systems, bool(shown) and NOISY in names)
    table = list_files(frame, names, facts, [*shown, *removed])
    rank = listening.describe_rank(ranking, is_difference=bool(shown))
    return listening_data(items, views, rank, colours=figures.system_colours(names), table=table, removed=bool(removed))


def _match_versions(originals: Path, folders: Mapping[str, Path]) -> dict[str, dict[str, Path]]:
    """The files of each folder by the names of those in `originals`; only references may be missing."""
    versions = {name: scores.match(originals, folder, name) for name, folder in folders.items() if name != REFERENCE}
    if REFERENCE in folders:
        keys = next(iter(versions.values()))
        versions[REFERENCE] = listing.find_partners(keys, folders[REFERENCE], "noise references")
    return versions


def list_files(
    frame: pd.DataFrame, names: Sequence[str], facts: Mapping[str, Mapping[str, Any]], shown: Sequence[str]
) -> dict[str, Any]:
    """Every file's score of every system, as the script reads them."""
    metrics = {name: {"title": " ".join(heading(name)[:2]).strip(), "decimals": heading(name)[2]} for name in shown}
    values = {
        name: frame.pivot(index="file", columns="system", values=name).reindex(columns=list(names)) for name in shown
    }
    rows = []
    for file in frame["file"].drop_duplicates():
        own = {
            name: [None if pd.isna(value) else round(float(value), 4) for value in table.loc[file]]
            for name, table in values.items()
        }
        rows.append({"file": file, **facts[file], "values": own})
    return {"systems": list(names), "metrics": metrics, "rows": rows}


def _draw_figure(
    out: Path,
    file: str,
    versions: Mapping[str, Mapping[str, Path]],
    frame: pd.DataFrame,
    shown: Sequence[str],
    excerpt_s: float,
) -> None:
    """figure.png: noisy, enhanced and clean spectrograms of a file of median gain on one scale, with its scores."""
    systems = [name for name in versions if name not in (NOISY, CLEAN, REFERENCE)]
    order = [name for name in (NOISY, *systems, CLEAN) if name in versions]
    rate = audio.info(versions[order[0]][file]).sample_rate
    waveforms = {name: audio.read(versions[name][file], rate, duration_s=excerpt_s) for name in order}
    words = {
        row["system"]: listening.describe_scores(row, figures.drawn_metrics(shown), shown[0])["scores"]
        for _, row in frame[frame["file"] == file].iterrows()
        if shown
    }
    captions = {name: "\n".join(lines) for name, lines in words.items()}
    figures.save_figure(figures.side_by_side(waveforms, rate, captions), out / "figure.png")
