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
from sgmse.data.mixing import SILENCE_RMS, crossfade, is_silent, loop_crossfade, rms, trim_silence
from sgmse.data.noise import Cut
from sgmse.data.references import MIXTURE_FLOOR_DB, has_energy, leak
from sgmse.data.testsets import items
from sgmse.data.testsets.items import Noise
from sgmse.data.testsets.plan import ITEM_STREAM, MIN_SPEECH_S, Draw, Plan, corpus_path, with_reference

DENSE = 0.9  # share of the frames of a stretch without pauses that are active: closures of stops are none
MAX_SPEECH_S = 10.0  # of longer files a stretch is taken
_TRIES = 20
Row = dict[str, Any]


class Part(NamedTuple):
    """A cut of one clip, at unit level, whose starts count from the beginning of the files, in samples of the set.

    Its reference comes from `reference_source`, that of the clip but for talkers; several are joined by "+".
    """

    clip: Clip
    reference_source: str
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
        # both items of a swapped pair draw the same
        number = draw.index // 2 if plan.recipe.name == "swap" else draw.index
        rng = np.random.default_rng((plan.recipe.seed, ITEM_STREAM, number, attempt))
        if plan.recipe.name == "swap":
            item = _mix_swap(plan, draw, attempt, rng)
        else:
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
    activity = None
    if plan.recipe.seconds is not None:
        length = round(plan.recipe.seconds * rate)
        begin, activity = items.find_densest(clean, length, rate)
        clean, unit_noise = clean[begin : begin + length], unit_noise[begin : begin + length]
        if not has_energy(unit_noise, 1.0, MIXTURE_FLOOR_DB):
            return None
        _, timeline = items.steady(unit_noise, parts[0].clip.kind, rate)
        starts = [part.cut.noise_start + (0 if part.cut.looped else begin) for part in parts]
        parts = [p._replace(cut=p.cut._replace(noise_start=start)) for p, start in zip(parts, starts, strict=True)]
    reference_parts = parts[:1] if draw.change == "events" else parts  # nobody records an event before it happens
    unit_reference = items.join([part.cut.reference for part in reference_parts], rate)
    clean, noise, gain = items.mix(clean, unit_noise, draw.snr_db, rate, unit_reference)
    reference = np.float32(gain) * unit_reference
    oracle = references.oracle(noise, rate, rng, *plan.recipe.reference_s)
    signals = {"clean": clean, "noise": noise, "noisy": clean + noise, "ref": reference, "ref_oracle": oracle}
    other_take = None if plan.recipe.name == "talkers" else _cut_other_takes(plan, reference_parts, rng)
    if other_take is not None:
        signals["ref_other_take"] = np.float32(gain) * other_take
    row = _describe_item(plan, draw, signals, parts, reference_parts, speech_path)
    row |= {"change": draw.change, "timeline": timeline, "redrawn": attempt}
    if activity is not None:
        row["activity"] = round(activity, 3)
    return Item(signals, reference_parts, gain, row)


def _mix_swap(plan: Plan, draw: Draw, attempt: int, rng: np.random.Generator) -> Item | None:
    """One of the two items of a mixture of two talkers; None when one of them says too little for a reference.

    Both are made, so that the mixture is the same to the last bit; the first of the pair keeps its level.
    """
    rate, role = plan.recipe.sample_rate, draw.index % 2
    clips = list(draw.clips[::-1] if role == 0 else draw.clips)  # what the first talker says, and the second
    if attempt > 0:
        own = [plan.clips[clip.kind] for clip in clips]
        clips = [others[rng.integers(len(others))] for others in own]
    files = [audio.read(clip.path, rate, 0.0, MAX_SPEECH_S) for clip in clips]
    speeches = [_trimmed(file, rate) for file in files]
    length = min(map(len, speeches))
    if length < MIN_SPEECH_S * rate:
        return None
    begins = [int(rng.integers(len(speech) - length + 1)) for speech in speeches]
    talks = [speech[begin : begin + length] for speech, begin in zip(speeches, begins, strict=True)]
    joined = [_join_utterances(plan, clip, rng) for clip in clips]
    levels = [items.sounding_rms(talk, rate) for talk in talks]
    if not all(len(reference) for reference, _ in joined) or min(levels) == 0:
        return None
    snr_db = draw.snr_db if role == 0 else -draw.snr_db
    talks[1] = np.float32(levels[0] / levels[1] * 10 ** (-snr_db / 20)) * talks[1]
    units = [np.float32(1 / items.sounding_rms(reference, rate)) * reference for reference, _ in joined]
    beside = [np.float32(items.sounding_rms(talk, rate)) * unit for talk, unit in zip(talks, units, strict=True)]
    peak = max(float(np.abs(waveform).max()) for waveform in (*talks, talks[0] + talks[1], *beside))
    scale = np.float32(min(1.0, items.PEAK / peak))
    other = 1 - role
    clean, noise, reference = scale * talks[role], scale * talks[other], scale * beside[other]
    oracle = references.oracle(noise, rate, rng, *plan.recipe.reference_s)
    signals = {"clean": clean, "noise": noise, "noisy": clean + noise, "ref": reference, "ref_oracle": oracle}
    before = len(files[other]) - len(np.trim_zeros(np.abs(files[other]) > SILENCE_RMS, "f"))
    cut = Cut(units[other], noise, False, 0, before + begins[other])
    part = Part(clips[other], joined[other][1], cut)
    row = _describe_item(plan, draw, signals, [part], [part], clips[role].path)
    # what is independent in such a set is the pair of talkers
    row |= {"source": "&".join(sorted(clip.kind for clip in clips)), "redrawn": attempt}
    row["timeline"] = items.steady(noise, part.clip.kind, rate)[1]
    return Item(signals, [part], items.sounding_rms(noise, rate), row)


def _join_utterances(plan: Plan, clip: Clip, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Other utterances of a talker, joined up to a length in `reference_s`, and their sources; empty: too short."""
    rate, (min_s, max_s) = plan.recipe.sample_rate, plan.recipe.reference_s
    others = [other for other in plan.clips[clip.kind] if other.path != clip.path]
    order = [others[i] for i in rng.permutation(len(others))]
    longest, joined, sources = round(rng.uniform(min_s, max_s) * rate), np.zeros(0, np.float32), []
    for other in order:
        joined = crossfade(joined, _trimmed(audio.read(other.path, rate, 0.0, max_s), rate), rate)
        sources.append(other.source)
        if len(joined) >= longest:
            break
    joined = joined[:longest]
    return (joined[:0] if len(joined) < min_s * rate or is_silent(joined) else joined), "+".join(sources)


def _trimmed(speech: np.ndarray, rate: int) -> np.ndarray:
    return items.without_rumble(trim_silence(speech), rate)


def _describe_item(
    plan: Plan, draw: Draw, signals: dict[str, np.ndarray], parts: list[Part], reference_parts: list[Part], speech: Path
) -> Row:
    """The row of the manifest, but for what only some kinds of sets know."""
    rate, clean, noise, reference = plan.recipe.sample_rate, *(signals[name] for name in ("clean", "noise", "ref"))
    found = leak.score(reference, noise, rate)
    return {
        "id": draw.id,
        "speech": speech.stem,
        "noise": "+".join(part.clip.path.name for part in parts),
        "kind": "+".join(part.clip.kind for part in parts),
        "snr_db": f"{draw.snr_db:g}",
        "seconds": round(len(clean) / rate, 4),
        "ref_seconds": round(len(reference) / rate, 4),
        "snr_file_db": round(20 * math.log10(rms(clean) / rms(noise)), 2),
        "change": "",
        "timeline": "",
        "source": "+".join(part.clip.source for part in parts),
        "ref_source": "+".join(part.reference_source for part in reference_parts),
        "ref_start": "+".join(str(part.cut.reference_start) for part in reference_parts),
        "noise_start": "+".join(str(part.cut.noise_start) for part in parts),
        "looped": sum(part.cut.looped for part in parts),
        "leak": round(found.peak, 3),
        "leak_shared": int(found.shared),
        "redrawn": 0,
        "speech_file": corpus_path(speech, plan.speech_dir),
        "noise_file": "+".join(corpus_path(part.clip.path, plan.noise_dir) for part in parts),
        "speech_sha256": file_digest(speech),
        "noise_sha256": "+".join(part.clip.digest() for part in parts),
    }


def _read_speech(plan: Plan, draw: Draw, rng: np.random.Generator) -> tuple[Path, np.ndarray]:
    """The file of the draw, or another one where it is silent, and its samples at the rate of the set."""
    path, rate = draw.speech, plan.recipe.sample_rate
    for _ in range(_TRIES):
        seconds = audio.info(path).seconds
        start_s = int(max(0.0, seconds - MAX_SPEECH_S) * rate * rng.random()) / rate
        clean = audio.read(path, rate, start_s, MAX_SPEECH_S)
        if plan.recipe.ladder_s is not None:
            length = round(plan.recipe.ladder_s * rate)
            begin, activity = items.find_densest(clean, length, rate)
            clean = clean[begin : begin + length] if activity >= DENSE else clean[:0]
        if len(clean) >= MIN_SPEECH_S * rate // 2 and not is_silent(clean):
            return path, clean
        path = plan.speech[rng.integers(len(plan.speech))]
    fault = "is silent" if plan.recipe.ladder_s is None else f"has no {plan.recipe.ladder_s:g} s without pauses"
    raise UserError(f"{draw.speech}: {fault}, and so it is with the other speech files drawn; use other speech")


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
        parts.append(Part(clip, clip.source, Cut(cut.reference, cut.noise, cut.looped, *starts)))
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
    return Part(clips[0], clips[1].source, Cut(*units, len(utterance) < length, other_offset + begin, offset + start))


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
