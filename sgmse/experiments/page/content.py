"""What the page says in tables: criteria, scores per set, all differences, classes and SNRs."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from sgmse.evaluation.metrics import FIRST, MAIN, METRICS
from sgmse.evaluation.tables import NOTHING, Table, number, probability, score_interval, titles
from sgmse.experiments import costs as measured
from sgmse.experiments.page.run import Run

COUNTS = "files/sources/seeds"
_INTERVALS = "Brackets hold 95 % intervals of the paired difference over seeds and noise sources"
_SLICES = {"kind": "noise class", "snr_db": "SNR in dB"}


def criteria(table: pd.DataFrame) -> Table:
    """The criteria, a row for each experiment and set; `table` comes from `criteria.judge_criteria`."""
    rows = [
        (
            row["criterion"].replace("_", " "),
            f"{row['experiment']} − {row['against']}" if row["experiment"] else NOTHING,
            row["set"] or NOTHING,
            score_interval(row, row["metric"], signed=True),
            f"> {row['threshold']:+g}".replace("-", "−"),
            probability(row["p_holm"]),
            counts(row),
            ": ".join(filter(None, (row["verdict"], row["reason"]))),
        )
        for _, row in table.iterrows()
    ]
    header = ("criterion", "difference", "set", "mean [95 % interval]", "wanted", "p (Holm)", COUNTS, "verdict")
    return Table("criteria", "Criteria", header, tuple(rows), tones=tuple(tone(v) for v in table["verdict"]))


def tone(verdict: str) -> str:
    """The CSS class of a verdict."""
    return "not-decidable" if verdict.startswith("not decidable") else verdict.replace(" ", "-")


def counts(row: pd.Series) -> str:
    return f"{row['n_files']}/{row['n_sources']}/{row['n_seeds']}"


def unprocessed(run: Run) -> Table:
    """The scores of the noisy files: the line that every system has to beat."""
    rows = []
    for name in run.plan.sets:
        own = run.noisy[run.noisy["set"] == name]
        minutes = number(own["seconds"].sum() / 60, 1) if "seconds" in own else NOTHING
        rows.append((name, *_means(own), str(len(own)), minutes))
    header = ("set", *titles(), "files", "minutes")
    return Table("unprocessed", "Unprocessed test sets", header, tuple(rows))


def per_set(run: Run, differences: pd.DataFrame) -> list[Table]:
    """For each set the mean scores of all experiments, and their differences to the baseline."""
    tables = []
    for name in run.plan.sets:
        scores = run.enhanced[run.enhanced["set"] == name]
        lines = [("noisy", *[""] * 3, *_means(run.noisy[run.noisy["set"] == name]), *[""] * (len(MAIN) + 2))]
        for experiment, rows in scores.groupby("experiment", sort=False):
            own = differences[(differences["experiment"] == experiment) & (differences["set"] == name)]
            lines.append(_line(run, str(experiment), rows, own))
        header = ("experiment", "w", "N", "NFE", *titles())
        deltas = [f"{title} to baseline" for title in titles(prefix="Δ")]
        header = (*header, deltas[0], "p (Holm)", *deltas[1:], "files × seeds")
        note = f"{_INTERVALS}; Holm's correction over all planned differences"
        tones = ("first", *[""] * (len(lines) - 1))
        tables.append(Table(f"set-{name}", f"Scores on {name}", header, tuple(lines), [note], tones))
    return tables


def all_differences(differences: pd.DataFrame) -> Table:
    """Every planned difference, all metrics side by side."""
    rows = []
    for (experiment, against, name), own in differences.groupby(["experiment", "against", "set"], sort=False):
        lines = _by_metric(own)
        cells = [cell for row in lines.values() for cell in (_difference(row), probability(row["p_holm"]))]
        first = lines[FIRST]
        remark = "; ".join(filter(None, ("smoke" if first["smoke"] else "", first["reason"])))
        rows.append((f"{experiment} − {against}", str(name), *cells, counts(first), remark))
    named = [text for title in titles(prefix="Δ") for text in (title, "p (Holm)")]
    header = ("difference", "set", *named, COUNTS, "remarks")
    return Table("differences", "All planned differences", header, tuple(rows), [_INTERVALS])


def slices(run: Run, differences: pd.DataFrame) -> list[Table]:
    """Differences by noise class and by SNR: a table for each set and kind of slice, a column per pair."""
    tables = []
    for name in run.plan.sets:
        noisy = run.noisy[run.noisy["set"] == name]
        for by, title in _SLICES.items():
            own = differences[(differences["set"] == name) & (differences["by"] == by)]
            if own["group"].nunique() < 2:
                continue
            pairs = list(dict.fromkeys(zip(own["experiment"], own["against"], strict=True)))
            groups = sorted(set(own["group"]), key=lambda g: (float(g), "") if by == "snr_db" else (0.0, g))
            names = noisy[by].map(lambda value: f"{value:g}" if isinstance(value, int | float) else str(value))
            rows = []
            for group in groups:
                here = own[own["group"] == group]
                found = {(row["experiment"], row["against"]): _difference(row) for _, row in here.iterrows()}
                score = number(noisy.loc[names == group, FIRST].mean(), METRICS[FIRST].decimals)
                cells = [found.get(pair, NOTHING) for pair in pairs]
                rows.append((group, str(here["n_files"].max()), score, *cells))
            header = (title, "files", f"noisy {METRICS[FIRST].title}", *(f"{a} − {b}" for a, b in pairs))
            caption = f"{METRICS[FIRST].title} differences on {name} by {title}"
            note = "Descriptive: few files each, no correction for their number"
            tables.append(Table(f"{by}-{name}".replace("_", "-"), caption, header, tuple(rows), [note]))
    return tables


def _line(run: Run, experiment: str, rows: pd.DataFrame, differences: pd.DataFrame) -> tuple[str, ...]:
    """The row of one experiment on one set. `differences`: of this experiment on this set."""
    name = f"{experiment} (smoke)" if experiment in run.smoke else experiment
    lines = _by_metric(differences[differences["against"] == run.experiments[experiment].baseline])
    cells = [NOTHING] * (len(MAIN) + 1)
    if lines:
        cells = [_difference(lines[FIRST]), probability(lines[FIRST]["p_holm"])]
        cells += [_difference(lines[metric]) if metric in lines else NOTHING for metric in MAIN[1:]]
    chosen = (_several(rows[column]) for column in ("guidance_scale", "N", "nfe"))
    return (name, *chosen, *_means(rows), *cells, f"{rows['file'].nunique()} × {rows['seed'].nunique()}")


def _by_metric(differences: pd.DataFrame) -> dict[str, pd.Series]:
    """The rows of one pair and set, in the order in which metrics are shown."""
    found = {str(row["metric"]): row for _, row in differences.iterrows()}
    return {metric: found[metric] for metric in MAIN if metric in found}


def _difference(row: pd.Series) -> str:
    return score_interval(row, row["metric"], signed=True)


def _means(rows: pd.DataFrame) -> list[str]:
    return [number(rows[metric].mean(), METRICS[metric].decimals) for metric in MAIN]


def _several(values: Iterable[float]) -> str:
    """What the seeds have, each once: seeds may have chosen differently."""
    return ", ".join(f"{value:g}" for value in sorted(set(pd.Series(values).dropna())))


def run_facts(run: Run) -> Table:
    """What was run, a row per experiment: its question, its training, what the validation set chose."""
    rows = []
    for name, experiment in run.experiments.items():
        training = run.plan.training_of[name]
        found = [run.choices[name, seed] for seed in run.plan.seeds if (name, seed) in run.choices]
        chosen = dict.fromkeys(f"w {c['guidance_scale']:g}, N {c['N']}, {c['checkpoint']}" for c in found)
        steps = _several(run.trainings.loc[run.trainings["training"] == training, "steps"])
        rows.append(
            (name, experiment.hypothesis, training, steps, "; ".join(chosen), f"{len(found)} of {len(run.plan.seeds)}")
        )
    header = ("experiment", "hypothesis", "training", "steps", "chosen on the validation set", "seeds")
    return Table("experiments", "Experiments", header, tuple(rows))


def costs(run: Run) -> list[Table]:
    """Convergence, latency and size."""
    return [_convergence(run), _latency(run), _size(run)]


def _convergence(run: Run) -> Table:
    rows = [
        (
            f"{row['training']}, seed {row['seed']}",
            row["experiments"],
            number(row["step"], 0),
            number(row["minutes"], 1),
            number(row["gpu_hours"], 2),
            number(row["best_step"], 0),
            number(row["best_pesq"] - row["noisy_pesq"], 2, signed=True),
            row["reason"],
        )
        for _, row in measured.find_convergences(run.folder, run.trainings).iterrows()
    ]
    header = ("training", "experiments", "steps to 95 %", "minutes", "GPU hours", "best step", "its ΔPESQ", "remarks")
    note = "Up to the first validation with 95 % of the best one's PESQ gain over the noisy files"
    return Table("convergence", "Convergence", header, tuple(rows), [note])


def _latency(run: Run) -> Table:
    columns = {"seed": "seed", "guidance_scale": "w", "N": "N", "nfe": "NFE", "passes": "network passes"}
    columns |= {"rtf": "real-time factor"}
    spent = measured.measure_latency(run.enhanced)
    rows = [(row["experiment"], *(f"{row[name]:.3g}" for name in columns)) for _, row in spent.iterrows()]
    note = "Real-time factor: seconds of computing per second of audio; compares on one machine only"
    return Table("latency", "Latency", ("experiment", *columns.values()), tuple(rows), [note])


def _size(run: Run) -> Table:
    rows = [
        (row["training"], row["experiments"], *(f"{row[name] / 1e6:.2f} M" for name in ("trained", "frozen")))
        for _, row in measured.list_sizes(run.trainings).iterrows()
    ]
    return Table("size", "Model size", ("training", "experiments", "parameters trained", "frozen"), tuple(rows))
