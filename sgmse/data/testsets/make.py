"""From a draw of the plan to the audio of one item: a pure function of the plan and the item's number."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sgmse.common.errors import UserError
from sgmse.common.files import file_digest
from sgmse.data import audio, references
from sgmse.data.corpora.manifest import Clip
from sgmse.data.mixing import SILENCE_RMS, is_silent, loop_crossfade, rms, trim_silence
from sgmse.data.noise import Cut
from sgmse.data.references import has_energy, leak
from sgmse.data.testsets import items
from sgmse.data.testsets.items import Noise
from sgmse.data.testsets.plan import ITEM_STREAM, MIN_SPEECH_S, Draw, Plan, corpus_path, with_reference

MAX_SPEECH_S = 10.0  # of longer files a stretch is taken
_TRIES = 20
Row = dict[str, Any]


class Part(NamedTuple):
    """A cut of one clip, at unit level, whose starts count from the beginning of the files, in samples of the set.

    Its reference comes from `reference_clip`, the same clip but for talkers.
    """

    clip: Clip
    reference_clip: Clip
    cut: Cut


class Item(NamedTuple):
    """The signals of an item by the name of their folder, and its row of the manifest.

    parts: those of its reference, at unit level, from which other items take theirs. gain: what brings such a reference
    to the level it would have in this item.
    """

    signals: dict[str, np.ndarray]
    parts: list[Part]
    gain: float
    row: Row


def make_item(plan: Plan, draw: Draw) -> Item:
    """Read and mix one item. A silent file, a clip that leaves no reference, and one whose reference turns out to
    share samples with the noise all the same (its author pasted them twice) give way to others of the same class."""
    shared, clips = None, draw.clips
    for attempt in range(_TRIES):
        rng = np.random.default_rng((plan.recipe.seed, ITEM_STREAM, draw.index, attempt))
        if attempt > 0:
            clips = _draw_other_clips(plan, draw, rng)
        item = _mix_item(plan, draw, clips, attempt, rng)
        if item is not None and not item.row["leak_shared"]:
            return item
        shared = shared or item
    if shared is not None:
        return shared
    kinds = " and ".join(dict.fromkeys(f"'{clip.kind}'" for clip in draw.clips))
    raise UserError(
        f"{draw.clips[0].path}: leaves no sounding reference of {plan.recipe.reference_s[0]:g} s beside its noise, and "
        f"neither do other clips of {kinds}; leave the class out with --classes, or lower --reference_s"
    )


def _draw_other_clips(plan: Plan, draw: Draw, rng: np.random.Generator) -> tuple[Clip, ...]:
    if plan.recipe.name == "talkers":
        clips = plan.clips[draw.clips[0].kind]
        return with_reference(clips[rng.integers(len(clips))], plan.clips, int(rng.integers(2**31)))
    return tuple(plan.clips[clip.kind][rng.integers(len(plan.clips[clip.kind]))] for clip in draw.clips)


def _mix_item(plan: Plan, draw: Draw, clips: tuple[Clip, ...], attempt: int, rng: np.random.Generator) -> Item | None:
    """The item of these clips; None when one of them cannot be cut."""
    rate = plan.recipe.sample_rate
    speech_path, clean = _read_speech(plan, draw, rng)
    made = _make_noise(plan, draw.change, clips, len(clean), rng)
    if made is None:
        return None
    (unit_noise, timeline), parts = made
    reference_parts = parts[:1] if draw.change == "events" else parts  # nobody records an event before it happens
    unit_reference = items.join([part.cut.reference for part in reference_parts], rate)
    clean, noise, gain = items.mix(clean, unit_noise, draw.snr_db, rate, unit_reference)
    reference = np.float32(gain) * unit_reference
    oracle = references.oracle(noise, rate, rng, *plan.recipe.reference_s)
    signals = {"clean": clean, "noise": noise, "noisy": clean + noise, "ref": reference, "ref_oracle": oracle}
    other_take = None if plan.recipe.name == "talkers" else _cut_other_takes(plan, reference_parts, rng)
    if other_take is not None:
        signals["ref_other_take"] = np.float32(gain) * other_take
    found = leak.score(reference, noise, rate)
    row: Row = {
        "id": draw.id,
        "speech": speech_path.stem,
        "noise": "+".join(part.clip.path.name for part in parts),
        "kind": "+".join(part.clip.kind for part in parts),
        "snr_db": f"{draw.snr_db:g}",
        "seconds": round(len(clean) / rate, 4),
        "ref_seconds": round(len(reference) / rate, 4),
        "snr_file_db": round(20 * math.log10(rms(clean) / rms(noise)), 2),
        "change": draw.change,
        "timeline": timeline,
        "source": "+".join(part.clip.source for part in parts),
        "ref_source": "+".join(part.reference_clip.source for part in reference_parts),
        "ref_start": "+".join(str(part.cut.reference_start) for part in reference_parts),
        "noise_start": "+".join(str(part.cut.noise_start) for part in parts),
        "looped": sum(part.cut.looped for part in parts),
        "leak": round(found.peak, 3),
        "leak_shared": int(found.shared),
        "redrawn": attempt,
        "speech_file": corpus_path(speech_path, plan.speech_dir),
        "noise_file": "+".join(corpus_path(part.clip.path, plan.noise_dir) for part in parts),
        "speech_sha256": file_digest(speech_path),
        "noise_sha256": "+".join(part.clip.digest() for part in parts),
    }
    return Item(signals, reference_parts, gain, row)


def _read_speech(plan: Plan, draw: Draw, rng: np.random.Generator) -> tuple[Path, np.ndarray]:
    """The file of the draw, or another one where it is silent, and its samples at the rate of the set."""
    path, rate = draw.speech, plan.recipe.sample_rate
    for _ in range(_TRIES):
        seconds = audio.info(path).seconds
        start_s = int(max(0.0, seconds - MAX_SPEECH_S) * rate * rng.random()) / rate
        clean = audio.read(path, rate, start_s, MAX_SPEECH_S)
        if not is_silent(clean) and len(clean) >= MIN_SPEECH_S * rate // 2:
            return path, clean
        path = plan.speech[rng.integers(len(plan.speech))]
    raise UserError(f"{draw.speech}: is silent, and so are the other speech files drawn; check the speech folder")


def _make_noise(
    plan: Plan, change: str, clips: tuple[Clip, ...], length: int, rng: np.random.Generator
) -> tuple[Noise, list[Part]] | None:
    """Unit-level noise [length] with the parts that it is made of; None when a clip cannot be cut."""
    rate, (min_s, max_s) = plan.recipe.sample_rate, plan.recipe.reference_s
    if plan.recipe.name == "talkers":
        talker = _cut_talker(plan, clips, length, rng)
        return talker and (items.steady(talker.cut.noise, talker.clip.kind, rate), [talker])
    lengths, bursts = [length], [0]
    if change == "concat":
        lengths = list(items.concat_lengths(length, rate, rng))
        max_s = max(min_s, max_s / 2)  # so that the reference of both is no longer than others
    elif change == "events":
        bursts = items.event_lengths(length, rate, rng)
        lengths = [length, sum(bursts)]
    parts = []
    for clip, part_length in zip(clips, lengths, strict=True):
        samples, offset = _read_stretch(clip, part_length, rate, max_s, rng)
        cut = items.cut(samples, part_length, rate, rng, min_s, max_s)
        if cut is None:
            return None
        starts = offset + cut.reference_start, offset + cut.noise_start
        parts.append(Part(clip, clip, Cut(cut.reference, cut.noise, cut.looped, *starts)))
    noises, kinds = [part.cut.noise for part in parts], [part.clip.kind for part in parts]
    if change == "concat":
        return items.concat(noises, kinds, rate), parts
    if change == "ramp":
        return items.ramp(noises[0], kinds[0], rate, rng), parts
    if change == "events":
        return items.events(noises[0], noises[1], bursts, kinds, rate, rng), parts
    return items.steady(noises[0], kinds[0], rate), parts


def _cut_talker(plan: Plan, clips: tuple[Clip, ...], length: int, rng: np.random.Generator) -> Part | None:
    """What another talker says in one file, looped where it is too short, and a reference from another file."""
    rate, (min_s, max_s) = plan.recipe.sample_rate, plan.recipe.reference_s
    (speech, offset), (other, other_offset) = (_read_stretch(clip, length, rate, max_s, rng) for clip in clips)
    longest = min(round(max_s * rate), len(other))
    if longest < round(min_s * rate) or not len(speech):
        return None
    taken = int(rng.integers(round(min_s * rate), longest + 1))
    start, begin = (int(rng.integers(max(0, len(w) - n) + 1)) for w, n in ((speech, length), (other, taken)))
    utterance, reference = speech[start : start + length], other[begin : begin + taken]
    noise = loop_crossfade(utterance, length, rate)
    levels = items.sounding_rms(noise, rate), items.sounding_rms(reference, rate)
    if min(levels) == 0 or not (has_energy(noise, rms(speech)) and has_energy(reference, rms(other))):
        return None
    units = reference / np.float32(levels[1]), noise / np.float32(levels[0])
    return Part(clips[0], clips[1], Cut(*units, len(utterance) < length, other_offset + begin, offset + start))


def _read_stretch(clip: Clip, length: int, rate: int, max_s: float, rng: np.random.Generator) -> tuple[np.ndarray, int]:
    """A stretch of the clip with room for reference and noise, and its offset in the file, in samples of the set.

    Digital silence at its ends and what lies below 30 Hz are left out.

    The whole clip if it is no longer than that: what is held in memory does not depend on the length of the file.
    """
    window_s = max(length / rate + max_s + references.GUARD_S, max_s / references.MAX_SHARE)
    spare = max(0, int((clip.seconds - window_s) * rate))
    start = int(rng.integers(spare + 1))
    samples = audio.read(clip.path, rate, start / rate, window_s)
    sounding = np.abs(samples) > SILENCE_RMS
    return items.without_rumble(trim_silence(samples), rate), start + int(np.argmax(sounding))


def _cut_other_takes(plan: Plan, parts: list[Part], rng: np.random.Generator) -> np.ndarray | None:
    """A unit-level reference cut from other takes of the same recordings; None where one has no other take."""
    rate, (min_s, max_s) = plan.recipe.sample_rate, plan.recipe.reference_s
    found = []
    for part in parts:
        takes = [c for c in plan.clips[part.clip.kind] if c.source == part.clip.source and c.path != part.clip.path]
        if not takes:
            return None
        length = len(part.cut.reference)
        samples, _ = _read_stretch(takes[rng.integers(len(takes))], length, rate, max_s, rng)
        cut = items.cut(samples, length, rate, rng, min_s, max_s)
        if cut is None:
            return None
        found.append(cut.noise)
    return items.join(found, rate)
