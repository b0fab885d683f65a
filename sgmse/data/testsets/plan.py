"""What a test set will hold, item by item, before any audio is read: balanced, and a function of the seed alone."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sgmse.common.errors import UserError
from sgmse.data.audio import AudioInfo
from sgmse.data.corpora.manifest import Clip
from sgmse.data.noise.talkers import talker

MIN_SPEECH_S = 0.5
CHANGES = ("concat", "ramp", "events")
_PARTS = {"": 1, "concat": 2, "ramp": 1, "events": 2}
_KIND_STREAM, _SOURCE_STREAM, _SPEECH_STREAM, ITEM_STREAM, _REFERENCE_STREAM = range(5)


@dataclass(frozen=True)
class Recipe:
    """What was asked for. `num` None: as many items as there are speech files.

    seconds: of each item, cut where its speech has the fewest pauses, out of a stretch of `ladder_s` that was chosen
    so. Sets that differ in `seconds` alone hold the same items, longer and shorter.
    """

    name: Literal["ood", "nonstationary", "talkers", "swap"]
    snr_db: tuple[float, ...] = (0.0, 5.0, 10.0)
    num: int | None = None
    seed: int = 0
    sample_rate: int = 16000
    reference_s: tuple[float, float] = (0.25, 2.0)
    seconds: float | None = None
    ladder_s: float | None = None


def swap_recipe(**settings: Any) -> Recipe:
    """Two talkers at about one level, and references of 2 to 4 s, unless `settings` say otherwise."""
    return Recipe("swap", **{"snr_db": (-2.5, 0.0, 2.5), "reference_s": (2.0, 4.0)} | settings)


@dataclass(frozen=True)
class Draw:
    """One item: its speech, its noise clips, how the noise changes ("": not), its SNR.

    There are two clips where the noise changes, and for `talkers`: what the other talker says, and the reference. For
    `swap` they are what the talker to remove says, and what the other one says, who is the speech.
    """

    index: int
    id: str
    speech: Path
    clips: tuple[Clip, ...]
    change: str
    snr_db: float


@dataclass(frozen=True)
class Plan:
    """The draws, and the whole inventory, from which an item draws anew when a file turns out to be unusable."""

    recipe: Recipe
    speech_dir: Path
    noise_dir: Path
    speech: tuple[Path, ...]
    clips: dict[str, tuple[Clip, ...]]
    draws: tuple[Draw, ...]

    def fingerprint(self) -> str:
        """Identity of recipe and inventory: the same files (by path and size) in the same build."""
        noises = [clip.path for clips in self.clips.values() for clip in clips]
        files = [(corpus_path(path, self.speech_dir), path.stat().st_size) for path in self.speech]
        files += [(corpus_path(path, self.noise_dir), path.stat().st_size) for path in noises]
        # what was not asked for leaves no trace, so that sets of before there was a choice are still these
        chosen = {name: value for name, value in vars(self.recipe).items() if value is not None or name == "num"}
        recipe = ", ".join(f"{name}={value!r}" for name, value in chosen.items())
        text = f"(Recipe({recipe}), {files!r})"
        return hashlib.sha256(text.encode()).hexdigest()


def corpus_path(path: Path, folder: Path) -> str:
    """A file's path below its corpus; of a file that a manifest elsewhere names, its folder's name and its own."""
    full, root = Path(os.path.abspath(path)), Path(os.path.abspath(folder))
    return (full.relative_to(root) if full.is_relative_to(root) else Path(*full.parts[-2:])).as_posix()


def make_plan(
    recipe: Recipe, speech_dir: Path, speech: Sequence[AudioInfo], noise_dir: Path, clips: Sequence[Clip]
) -> Plan:
    """Classes as equal as possible, every SNR equally often in every class, each source and speech file seldom.

    Item i does not depend on how many items follow it. For `talkers`, whose classes are the talkers, an item's speech
    is never that of its other talker. Raises `UserError` where no item could be made.
    """
    shortest = recipe.ladder_s or MIN_SPEECH_S
    usable = tuple(info.path for info in speech if info.seconds >= shortest)
    if not usable:
        raise UserError(f"{speech[0].path}: is shorter than {shortest:g} s, and so is all speech; use another folder")
    if recipe.name == "swap":
        return Plan(recipe, speech_dir, noise_dir, usable, *_plan_swaps(recipe, clips))
    by_kind = _by_kind(clips, recipe.reference_s[0])
    if recipe.name == "nonstationary" and len(by_kind) < 2:
        raise UserError(
            f"nonstationary noise changes its class, but all clips are of '{next(iter(by_kind))}'; name a folder with "
            "two classes or more"
        )
    if recipe.name == "talkers":
        by_kind = _with_two_files(by_kind, {talker(path) for path in usable})
    num = len(usable) if recipe.num is None else recipe.num
    digits = max(3, len(str(num - 1)))
    parts, draws = _parts(recipe.seed, by_kind), []
    for index in range(num):
        speech_path = usable[_draw_index(index, len(usable), recipe.seed, _SPEECH_STREAM)]
        change = CHANGES[index % len(CHANGES)] if recipe.name == "nonstationary" else ""
        chosen = [next(parts) for _ in range(_PARTS[change])]
        turn = index // len(CHANGES) if recipe.name == "nonstationary" else chosen[0][0]
        if recipe.name == "talkers":
            while chosen[0][1].kind == talker(speech_path):
                chosen = [next(parts)]
            turn = index
        clips = tuple(clip for _, clip in chosen)
        draws.append(
            Draw(
                index,
                f"{recipe.name}_{index:0{digits}d}",
                speech_path,
                with_reference(clips[0], by_kind, recipe.seed, index) if recipe.name == "talkers" else clips,
                change,
                recipe.snr_db[turn % len(recipe.snr_db)],
            )
        )
    return Plan(recipe, speech_dir, noise_dir, usable, by_kind, tuple(draws))


def _plan_swaps(recipe: Recipe, clips: Sequence[Clip]) -> tuple[dict[str, tuple[Clip, ...]], tuple[Draw, ...]]:
    """Pairs of talkers, each of whom is the one to remove once: items 2i and 2i + 1 are one mixture.

    Talkers come in rounds, each holding every talker once in a new order, and so do the utterances of each.
    """
    by_kind = _with_two_files(_by_kind(clips, MIN_SPEECH_S / 2.5), both=True)
    parts, draws = _parts(recipe.seed, by_kind), []
    if recipe.num is not None and recipe.num % 2:
        raise UserError(f"--num {recipe.num}: a swap is two items of one mixture; give an even number")
    num = (len(clips) if recipe.num is None else recipe.num) // 2
    digits = max(3, len(str(2 * num - 1)))
    for pair in range(num):
        first, second = next(parts)[1], next(parts)[1]
        while second.kind == first.kind:
            second = next(parts)[1]
        snr_db = recipe.snr_db[pair % len(recipe.snr_db)]
        for role, (kept, removed) in enumerate(((first, second), (second, first))):
            index = 2 * pair + role
            own_snr_db = snr_db if role == 0 else -snr_db
            draws.append(Draw(index, f"swap_{index:0{digits}d}", kept.path, (removed, kept), "", own_snr_db))
    return by_kind, tuple(draws)


def with_reference(clip: Clip, by_kind: dict[str, tuple[Clip, ...]], *seed: int) -> tuple[Clip, Clip]:
    """A clip of a talker, and another one of the same talker for the reference."""
    others = [other for other in by_kind[clip.kind] if other.path != clip.path]
    return clip, others[np.random.default_rng((_REFERENCE_STREAM, *seed)).integers(len(others))]


def _with_two_files(
    by_kind: dict[str, tuple[Clip, ...]], speech: Set[str] = frozenset(), both: bool = False
) -> dict[str, tuple[Clip, ...]]:
    """The talkers of whom one file can be the noise and another one the reference.

    Raises `UserError` where there is none beside a talker of the `speech`, or fewer than two where `both` are of them.
    """
    kept = {kind: clips for kind, clips in by_kind.items() if len(clips) > 1}
    if len(kept) < 2 and (both or not kept.keys() - speech):
        raise UserError(
            f"{next(iter(by_kind.values()))[0].path.parent}: {len(kept)} of its talkers have two files or more, so no "
            "other talker has one to say and one for the reference; talkers are told apart by file names such as "
            "p226_001.wav, or by a folder each"
        )
    return kept


def _by_kind(clips: Sequence[Clip], min_s: float) -> dict[str, tuple[Clip, ...]]:
    """The clips of each class that are long enough for a reference and as much noise."""
    found: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        if clip.seconds >= 2.5 * min_s:
            found[clip.kind].append(clip)
    if not found:
        raise UserError(
            f"{clips[0].path}: is shorter than {2.5 * min_s:g} s, and so are all clips, too short for a reference of "
            f"{min_s:g} s beside the noise; lower the first number of --reference_s or use longer recordings"
        )
    return {kind: tuple(found[kind]) for kind in sorted(found)}


def _parts(seed: int, by_kind: dict[str, tuple[Clip, ...]]) -> Iterator[tuple[int, Clip]]:
    """Without end: a clip, and a number that cycles the SNRs through each class.

    Classes come in rounds, each holding every class once in a new order; two in a row differ. The clips of a class
    come source by source in a drawn order, from the second round on with the next take of each source.
    """
    kinds = list(by_kind)
    takes = [_sources(by_kind[kind], (seed, _SOURCE_STREAM, number)) for number, kind in enumerate(kinds)]
    count = 0
    while True:
        number = _draw_index(count, len(kinds), seed, _KIND_STREAM)
        use = count // len(kinds)
        source = takes[number][use % len(takes[number])]
        yield use + number, source[use // len(takes[number]) % len(source)]
        count += 1


def _sources(clips: Sequence[Clip], seed: tuple[int, ...]) -> list[list[Clip]]:
    """The clips of one class grouped by source, sources and takes in a drawn order."""
    rng = np.random.default_rng(seed)
    groups: dict[str, list[Clip]] = defaultdict(list)
    for place in rng.permutation(len(clips)):
        groups[clips[place].source].append(clips[place])
    return list(groups.values())


def _draw_index(count: int, length: int, seed: int, stream: int) -> int:
    """The index in [0, length) of a running count: every round visits all, none comes twice in a row if length > 1."""
    turn, place = divmod(count, length)
    return int(_order(turn, length, seed, stream)[place])


@lru_cache(maxsize=8)
def _order(turn: int, length: int, seed: int, stream: int) -> np.ndarray:
    order = np.random.default_rng((seed, stream, turn)).permutation(length)
    if turn > 0 and length > 1 and order[0] == _order(turn - 1, length, seed, stream)[-1]:
        order = np.roll(order, -1)
    return order
