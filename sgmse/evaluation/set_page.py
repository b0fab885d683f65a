"""The page of a set of files and its enhanced versions: differences first, then scores, then files to listen to.

Without clean files it shows before and after: what was there, what is left, and what was removed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sgmse.common.progress import track
from sgmse.data import audio, listing
from sgmse.evaluation import figures, listening, scores
from sgmse.evaluation.listening import CLEAN, EXCERPT_S, REFERENCE, heading
from sgmse.evaluation.metrics import MAIN, METRICS
from sgmse.evaluation.page import INDEX, Section, listening_data, page_folder, write_sections
from sgmse.evaluation.results import NOISY
from sgmse.evaluation.scores import REMOVED
from sgmse.evaluation.tables import Table, score_interval, scores_table

_INTERVALS = (
    "Brackets and bars hold 95 % intervals over noise sources: files that share a noise recording count together, a "
    "file without a known one for itself."
)
_UNSCORED = (
    "No clean files were named, so that nothing says how good a system is: listen to what is left, and to what was "
    "removed, in which no speech should be."
)


def write_page(
    out_dir: Path,
    frame: pd.DataFrame,
    systems: Mapping[str, Path],
    noisy_dir: Path | None,
    clean_dir: Path | None = None,
    ref_dir: Path | None = None,
    max_items: int = 12,
    title: str = "Speech enhancement",
    excerpt_s: float = EXCERPT_S,
) -> Path:
    """Write the page of a set to the folder `out_dir`; an older page there is replaced. Returns its index.html.

    `frame` has a row per system and file: scores of `scores.evaluate`, and without clean files what
    `scores.measure_removed` returns. The folders are those that were scored. figure.png shows one file, for a paper.
    """
    shown = [name for name in METRICS if name in frame and frame[name].notna().any()]
    named = {CLEAN: clean_dir, NOISY: noisy_dir, REFERENCE: ref_dir, **systems}
    folders = {name: folder for name, folder in named.items() if folder is not None}
    runs = {name: values for name, folder in systems.items() if (values := scores.run_settings(folder))}
    minutes = frame.drop_duplicates("file")["seconds"].sum() / 60
    with page_folder(out_dir, "--page") as part:
        sections = [*_compare(frame, shown, part), *_list_scores(frame, shown, part)]
        data = _write_files(part, frame, systems, folders, shown, max_items, excerpt_s)
        settings = [_list_pairs(f"Settings of {name}", values) for name, values in runs.items()]
        sections.append(Section("Settings", folded=[*settings, _list_pairs("Folders", folders)]))
        words = f"{frame['file'].nunique()} files, {minutes:.1f} minutes. {_INTERVALS if shown else _UNSCORED}"
        write_sections(part, title, words, sections, links={"Figure": "figure.png"}, data=data)
    return out_dir / INDEX


def _compare(frame: pd.DataFrame, shown: Sequence[str], out: Path) -> list[Section]:
    """What the page is about: systems against each other, and over the noisy files."""
    pairs = scores.planned_pairs(frame)
    parts = {
        "Systems against each other": [pair for pair in pairs if pair[1] != NOISY],
        "Gain over the noisy files": [pair for pair in pairs if pair[1] == NOISY],
    }
    sections = []
    for title, own in parts.items():
        if not own or not shown:
            continue
        rows = pd.concat([scores.paired(frame, *pair).assign(first=pair[0], second=pair[1]) for pair in own])
        table = scores_table(rows, title.replace(" ", "-").lower(), title, signed=True)
        stem = "forest" if title.startswith("Systems") else "gain"
        drawn = _draw(rows, _main(shown), out, stem)
        text = (
            "Paired differences, file by file. A filled point: the interval excludes 0 (green: better, red: worse). "
            "A hollow one: undecided, this set cannot tell the two apart."
        )
        cards = [make_card(row) for _, row in rows[rows["metric"] == shown[0]].iterrows()]
        sections.append(Section(title, text, cards, drawn, [table]))
    return sections


def make_card(row: pd.Series) -> dict[str, Any]:
    """A difference in large letters, and whether it is decided. row: first, second, metric, mean, low, high."""
    metric = METRICS[row["metric"]]
    name, _, unit = metric.title.partition(" ")
    sign = 1 if metric.higher_is_better else -1
    ends = sorted((sign * row["low"], sign * row["high"]))
    verdict, tone = ("better", "met") if ends[0] > 0 else ("worse", "not-met") if ends[1] < 0 else ("undecided", "open")
    mean, _, brackets = score_interval(row, row["metric"], signed=True).partition(" ")
    text = f"{name}: {row['first']} − {row['second']}"
    return {"tone": tone, "figure": f"{mean} {unit}", "small": brackets, "text": text, "verdicts": [(verdict, tone)]}


def _list_scores(frame: pd.DataFrame, shown: Sequence[str], out: Path) -> list[Section]:
    """The scores of each system itself."""
    if not shown:
        return []
    means = scores.summary(frame)
    names = list(frame["system"].unique())
    coloured = means.assign(
        first=means["system"], second="", colour=means["system"].map(lambda name: _colours(names)[name])
    )
    table = scores_table(means, "means", "Mean over files")
    text = "The line marks the noisy files." if NOISY in names else ""
    return [Section("Scores", text, figures=_draw(coloured, _main(shown), out, "means"), tables=[table])]


def _main(shown: Sequence[str]) -> list[str]:
    """The metrics that are drawn; all of them stand in the tables."""
    return [name for name in shown if name in MAIN] or list(shown[:3])


def _colours(names: Sequence[str]) -> dict[str, str]:
    """A colour per system, the same in all figures and beside the players."""
    systems = [name for name in names if name != NOISY]
    return {NOISY: "#6b7280"} | {name: figures.colour(place) for place, name in enumerate(systems)}


def _draw(rows: pd.DataFrame, metrics: Sequence[str], out: Path, stem: str) -> list[tuple[str, str]]:
    """A figure per metric of the intervals in `rows`: of differences around 0, of scores (with a colour) around noisy.

    Intervals without a mean are left out.
    """
    drawn = []
    for metric in metrics:
        own = rows[(rows["metric"] == metric) & rows["mean"].notna()]
        if own.empty:
            continue
        title, around = METRICS[metric].title, 0.0
        if "colour" in own:
            around = float(own.loc[own["first"] == NOISY, "mean"].sum() or math.nan)
        else:
            title, own = figures.difference_title(metric), figures.judge_differences(own, metric)
        labels = [f"{row['first']} − {row['second']}" if row["second"] else row["first"] for _, row in own.iterrows()]
        figures.draw_intervals(own.assign(label=labels), title, around, out / f"{stem}_{metric}.png")
        drawn.append((f"{stem}_{metric}.png", f"{title}: mean and 95 % interval of {', '.join(labels)}"))
    return drawn


def _list_pairs(caption: str, values: Mapping[str, Any]) -> Table:
    rows = [(str(name), str(value)) for name, value in values.items()]
    return Table(caption.replace(" ", "-").lower(), caption, ("setting", "value"), rows)


def _write_files(
    out: Path,
    frame: pd.DataFrame,
    systems: Mapping[str, Path],
    folders: Mapping[str, Path],
    shown: Sequence[str],
    max_items: int,
    excerpt_s: float,
) -> dict[str, Any]:
    """Draw and copy the versions of some files. Returns what the script of the page reads."""
    originals = folders.get(CLEAN) or folders[NOISY]
    versions = {name: scores.match(originals, folder, name) for name, folder in folders.items() if name != REFERENCE}
    if REFERENCE in folders:
        keys = next(iter(versions.values()))
        versions[REFERENCE] = listing.find_partners(keys, folders[REFERENCE], "noise references")
    names = list(frame["system"].unique())
    removed = [REMOVED] if REMOVED in frame else []
    ranking = [*shown, *removed][0]
    by_system = frame.pivot(index="file", columns="system", values=ranking)
    gains = by_system[names[-1]] - (by_system[NOISY] if NOISY in by_system and len(names) > 1 else 0)
    facts = scores.find_facts(originals, frame["file"])
    items = []
    chosen = listening.choose_items(gains, max_items)
    for place, file in enumerate(track(chosen, len(chosen), "spectrograms", "row")):
        sounds = {name: paths[file] for name, paths in versions.items() if file in paths}
        removed_by = list(systems) if NOISY in versions else []
        item = listening.write_versions(out, f"media/{place:03d}", sounds, excerpt_s, removed_by)
        for name, panel in item["panels"].items():
            row = frame[(frame["system"] == name) & (frame["file"] == file)]
            panel |= listening.describe_scores(row.iloc[0] if len(row) else None, [*_main(shown), *removed], ranking)
        items.append({"set": "", "file": file, **facts[file], **item})
    median = gains.sort_values(kind="stable").index[len(gains) // 2]
    _draw_figure(out, str(median), versions, frame, shown, excerpt_s)
    title, decimals = (METRICS[ranking].title, METRICS[ranking].decimals) if shown else ("% of the energy removed", 1)
    rank = {"title": title, "decimals": decimals, "is_difference": bool(shown)}
    rank |= {"higher_is_better": not shown or METRICS[ranking].higher_is_better}
    views = listening.make_views(list(systems), bool(shown) and NOISY in names)
    table = list_files(frame, names, facts, [*shown, *removed])
    return listening_data(items, views, rank, colours=_colours(names), table=table, removed=bool(removed))


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
        row["system"]: listening.describe_scores(row, _main(shown), shown[0])["scores"]
        for _, row in frame[frame["file"] == file].iterrows()
        if shown
    }
    captions = {name: "\n".join(lines) for name, lines in words.items()}
    figures.save_figure(figures.side_by_side(waveforms, rate, captions), out / "figure.png")
