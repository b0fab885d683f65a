"""What the page says in tables: scores per set, all differences, classes and SNRs, and what results cost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from sgmse.evaluation.metrics import FIRST, METRICS, names_in
from sgmse.evaluation.tables import NOTHING, Table, number, probability, score_interval, titles
from sgmse.experiments.comparisons import SLICES, WHOLE
from sgmse.experiments.results import Run

SHARE = 0.95  # of the best gain, at which a training counts as converged
_INTERVALS = "Brackets hold 95 % intervals of the paired difference over seeds and noise sources"
_SLICES = dict(zip(SLICES, ("noise class", "SNR in dB"), strict=True))


def list_experiments(run: Run) -> Table:
    """What was run, a row per experiment: its question, its training, what the validation set chose."""
    rows = []
    for name, experiment in run.plan.experiments.items():
        training = run.plan.training_of[name]
        found = [run.choices[name, seed] for seed in run.plan.seeds if (name, seed) in run.choices]
        chosen = dict.fromkeys(f"w {c['guidance_scale']:g}, N {c['N']}, {c['checkpoint']}" for c in found)
        steps = _list_values(run.trainings.loc[run.trainings["training"] == training, "steps"])
        seeds = f"{len(found)} of {len(run.plan.seeds)}"
        rows.append((name, experiment.hypothesis, training, steps, "; ".join(chosen), seeds))
    header = ("experiment", "hypothesis", "training", "steps", "chosen on the validation set", "seeds")
    return Table("experiments", "Experiments", header, rows)


def list_unprocessed(run: Run) -> Table:
    """The scores of the noisy files: the line that every system has to beat."""
    rows, metrics = [], names_in(run.results.columns)
    for name in run.plan.sets:
        own = run.noisy[run.noisy["set"] == name]
        rows.append((name, *_means(own, metrics), str(len(own)), number(own["seconds"].sum() / 60, 1)))
    return Table("unprocessed", "Unprocessed test sets", ("set", *titles(metrics), "files", "minutes"), rows)


def list_scores(run: Run, differences: pd.DataFrame) -> list[Table]:
    """For each set the mean scores of all experiments, and their differences to the baseline."""
    tables, metrics = [], names_in(run.results.columns)
    for name in run.plan.sets:
        scores, here = run.enhanced[run.enhanced["set"] == name], _select(differences, set=name, by=WHOLE)
        noisy = _means(run.noisy[run.noisy["set"] == name], metrics)
        lines = [("noisy", "", "", "", *noisy, *[""] * (len(metrics) + 2))]
        for experiment in scores["experiment"].unique():
            rows, baseline = _select(scores, experiment=experiment), run.plan.experiments[experiment].baseline
            title = f"{experiment} (smoke)" if experiment in run.smoke else experiment
            chosen = [_list_values(rows[column]) for column in ("guidance_scale", "N", "nfe")]
            deltas = _without_other_p(_describe_pair(_select(here, experiment=experiment, against=baseline), metrics))
            counts = f"{rows['file'].nunique()} × {rows['seed'].nunique()}"
            lines.append((title, *chosen, *_means(rows, metrics), *deltas, counts))
        header = ("experiment", "w", "N", "NFE", *titles(metrics), *_without_other_p(_deltas(metrics)), "files × seeds")
        note = f"Δ is the difference to the baseline. {_INTERVALS}; Holm's correction over all planned differences"
        tones = ("first", *[""] * (len(lines) - 1))
        tables.append(Table(f"set-{name}", f"Scores on {name}", header, lines, [note], tones))
    return tables


def list_differences(differences: pd.DataFrame) -> Table:
    """Every planned difference, all metrics side by side."""
    rows, metrics = [], names_in(set(differences["metric"]))
    whole = _select(differences, by=WHOLE)
    for (experiment, against, name), own in whole.groupby(["experiment", "against", "set"], sort=False):
        first = own.iloc[0]
        counts = f"{first['n_files']}/{first['n_sources']}/{first['n_seeds']}"
        remark = "; ".join(filter(None, ("smoke" if first["smoke"] else "", first["reason"])))
        rows.append((f"{experiment} − {against}", str(name), *_describe_pair(own, metrics), counts, remark))
    header = ("difference", "set", *_deltas(metrics), "files/sources/seeds", "remarks")
    return Table("differences", "All planned differences", header, rows, [_INTERVALS])


def list_slices(run: Run, differences: pd.DataFrame) -> list[Table]:
    """Differences by noise class and by SNR: a table for each set and kind of slice, a column per pair."""
    tables = []
    for name in run.plan.sets:
        noisy = run.noisy[run.noisy["set"] == name]
        for by, title in _SLICES.items():
            own = _select(differences, set=name, by=by)
            if own["group"].nunique() < 2:
                continue
            cells = own.assign(
                pair=own["experiment"] + " − " + own["against"],
                cell=[score_interval(row, FIRST, signed=True) for _, row in own.iterrows()],
            )
            pairs = list(cells["pair"].drop_duplicates())
            found = cells.pivot(index="group", columns="pair", values="cell")[pairs].fillna(NOTHING)
            names = noisy[by].map(lambda value: f"{value:g}" if isinstance(value, int | float) else str(value))
            rows = []
            for group in sorted(own["group"].unique(), key=float if by == "snr_db" else str):
                score = number(noisy.loc[names == group, FIRST].mean(), METRICS[FIRST].decimals)
                rows.append((group, str(_select(own, group=group)["n_files"].max()), score, *found.loc[group]))
            header = (title, "files", f"noisy {METRICS[FIRST].title}", *pairs)
            caption = f"{METRICS[FIRST].title} differences on {name} by {title}"
            note = "Descriptive: few files each, no correction for their number"
            tables.append(Table(f"{by}-{name}".replace("_", "-"), caption, header, rows, [note]))
    return tables


def list_costs(run: Run) -> list[Table]:
    """How soon each training converges, how long enhancement takes, how large the networks are."""
    convergence = []
    for _, row in run.trainings.iterrows():
        found = find_convergence(run.validations.get((row["training"], row["seed"])))
        is_gpu = str(row["device"]).startswith("cuda")  # one device: hours of others would not compare
        convergence.append(
            (
                f"{row['training']}, seed {row['seed']}",
                row["experiments"],
                number(found["step"], 0),
                number(found["minutes"], 1),
                number(found["minutes"] / 60 if is_gpu else math.nan, 2),
                number(found["best_step"], 0),
                number(found["best_gain"], 2, signed=True),
                found["reason"],
            )
        )
    header = ("training", "experiments", "steps to 95 %", "minutes", "GPU hours", "best step", "its ΔPESQ", "remarks")
    note = "Up to the first validation with 95 % of the best one's PESQ gain over the noisy files"
    sizes = [
        (row["training"], row["experiments"], *(f"{row[f'parameters_{n}'] / 1e6:.2f} M" for n in ("trained", "frozen")))
        for _, row in run.trainings.drop_duplicates("training").iterrows()
    ]
    return [
        Table("convergence", "Convergence", header, convergence, [note]),
        _list_latencies(run),
        Table("size", "Model size", ("training", "experiments", "parameters trained", "frozen"), sizes),
    ]


def _list_latencies(run: Run) -> Table:
    """What enhancement cost over all files, by experiment and seed, whose guidance and steps were chosen apart."""
    rows = []
    for (experiment, seed), own in run.enhanced.groupby(["experiment", "seed"], sort=False):
        real_time_factor = (own["rtf"] * own["seconds"]).sum() / own["seconds"].sum()
        chosen = [own[name].iloc[0] for name in ("guidance_scale", "N")]
        values = [*chosen, own["nfe"].mean(), own["passes"].mean(), real_time_factor]
        rows.append((str(experiment), str(seed), *(f"{value:.3g}" for value in values)))
    header = ("experiment", "seed", "w", "N", "NFE", "network passes", "real-time factor")
    note = "Real-time factor: seconds of computing per second of audio; compares on one machine only"
    return Table("latency", "Latency", header, rows, [note])


def find_convergence(table: pd.DataFrame | None) -> dict[str, Any]:
    """When the training with this validation.csv was nearly as good as it became: step, minutes, best_step, best_gain.

    The gain of a validation is its PESQ (with the reference, w = 1, averaged weights) less that of the noisy files.
    `step` and `minutes` (validations included; a resumed run counts on) are those of the first validation whose gain is
    at least 95 % of the best one's; NaN where no validation gains. The validation before it was worse, so both are
    upper bounds by one interval. A run whose last validation is the best may not have finished learning. reason: why
    there is no step, or what to know of it.
    """
    nothing: dict[str, Any] = dict.fromkeys(("step", "minutes", "best_step", "best_gain"), math.nan)
    if table is None:
        return nothing | {"reason": "no validation yet"}
    if not {"pesq", "noisy/pesq"} <= set(table):
        return nothing | {"reason": "no PESQ was measured in training (num_eval_files 0)"}
    scored = table[table["pesq"].notna() & table["noisy/pesq"].notna()]
    if scored.empty:
        return nothing | {"reason": "no validation has a PESQ"}
    gain = scored["pesq"] - scored["noisy/pesq"]
    best = scored.iloc[int(gain.to_numpy().argmax())]
    found = nothing | {"best_step": int(best["step"]), "best_gain": gain.max()}
    if gain.max() <= 0:
        return found | {"reason": "no validation was better than the noisy files"}
    first = scored[gain >= SHARE * gain.max()].iloc[0]
    is_last = best["step"] == scored["step"].max()
    reason = "the last validation was the best: it may still have been learning" if is_last else ""
    return found | {"step": int(first["step"]), "minutes": float(first["seconds"]) / 60, "reason": reason}


def _select(frame: pd.DataFrame, **values: object) -> pd.DataFrame:
    """The rows that have these values in the columns of these names."""
    for column, value in values.items():
        frame = frame[frame[column] == value]
    return frame


def _deltas(metrics: Sequence[str]) -> list[str]:
    """The headings of differences: of each metric, and of its p."""
    return [text for title in titles(metrics, prefix="Δ") for text in (title, "p (Holm)")]


def _describe_pair(own: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    """The cells below `_deltas`; `own` has a row per metric, or none."""
    found = {
        row["metric"]: [score_interval(row, row["metric"], True), probability(row["p_holm"])]
        for _, row in own.iterrows()
    }
    return [cell for metric in metrics for cell in found.get(metric, [NOTHING, NOTHING])]


def _without_other_p(cells: list[str]) -> list[str]:
    """Cells below `_deltas` with the p of the first metric alone; the others stand in `list_differences`."""
    return [*cells[:2], *cells[2::2]]


def _means(rows: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    return [number(rows[metric].mean(), METRICS[metric].decimals) for metric in metrics]


def _list_values(values: Iterable[float]) -> str:
    """What the seeds have, each once: seeds may have chosen differently."""
    return ", ".join(f"{value:g}" for value in sorted(set(pd.Series(values).dropna())))
