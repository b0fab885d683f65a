"""A plan as cells: the smallest pieces of work that are done, fail, and are found done again, each on its own."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sgmse.experiments.plan import Plan
from sgmse.experiments.scales import VALID

Kind = Literal["set", "noisy", "train", "choose", "enhance", "score"]
Stage = Literal["train", "evaluate", "all"]
_WORDS = {"set": "test set", "noisy": "unprocessed files of", "train": "training"}


@dataclass(frozen=True)
class Cell:
    """One piece of work.

    set: build a test set. noisy: score its unprocessed files. train: a training. choose: guidance scale, steps and
    checkpoint on the validation set. enhance, score: a test set with what was chosen.

    Attributes:
        name: of the experiment; for `train` of the training; for `set` and `noisy` of the set.
        test_set: for `enhance` and `score`. needs: the cells whose products this one takes.
    """

    kind: Kind
    name: str
    seed: int | None = None
    test_set: str = ""
    needs: tuple[Cell, ...] = ()

    @property
    def key(self) -> str:
        """The name of its record and its log."""
        seed = "" if self.seed is None else f"seed{self.seed}"
        return "_".join(part for part in (self.kind, self.name, seed, self.test_set) if part)

    def __str__(self) -> str:
        seed = "" if self.seed is None else f", seed {self.seed}"
        test_set = f", {self.test_set}" if self.test_set else ""
        return f"{_WORDS.get(self.kind, self.kind)} {self.name}{seed}{test_set}"


def list_cells(
    plan: Plan, shares: Sequence[tuple[str, int]], stage: Stage = "all", left_out: Collection[str] = ()
) -> list[Cell]:
    """The cells of the trainings in `shares` (name, seed) and of the experiments of `plan` that rest on them.

    Test sets come first. Then each cell follows those that it needs, share by share, so that a table exists early.
    `left_out`: test sets that these data do not allow.
    """
    found: dict[str, Cell] = {}
    for name, seed in shares:
        _add(found, [Cell("train", name, seed)])
        for id in plan.trainings[name].experiments if stage != "train" else ():
            _add(found, _evaluation_cells(plan, id, seed, left_out))
    listed = [cell for cell in found.values() if stage != "evaluate" or cell.kind != "train"]
    return sorted(listed, key=lambda cell: cell.kind != "set")


def list_shares(plan: Plan) -> list[tuple[str, int]]:
    """Every training of a plan with every seed, seed by seed."""
    return [(name, seed) for seed in plan.seeds for name in plan.trainings]


def _evaluation_cells(plan: Plan, id: str, seed: int, left_out: Collection[str]) -> Iterable[Cell]:
    training = Cell("train", plan.training_of[id], seed)
    choice = Cell("choose", id, seed, needs=(training, Cell("set", VALID)))
    for name in (one for one in plan.sets_of(id) if one not in left_out):
        built = Cell("set", name)
        enhanced = Cell("enhance", id, seed, name, needs=(choice, built))
        yield from (Cell("noisy", name, needs=(built,)), Cell("score", id, seed, name, needs=(enhanced,)))


def _add(found: dict[str, Cell], cells: Iterable[Cell]) -> None:
    """Each cell once, after those that it needs."""
    for cell in cells:
        _add(found, cell.needs)
        found.setdefault(cell.key, cell)
