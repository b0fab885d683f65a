"""Noise made of speech: babble, or one competing talker. The talker of the clean speech never takes part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sgmse.common.errors import UserError
from sgmse.data import audio, references
from sgmse.data.audio import AudioInfo
from sgmse.data.mixing import crossfade, is_silent, rms
from sgmse.data.noise import Cut, CutLengths, cut_clip, match_level, read_clip
from sgmse.data.noise.synthetic import with_rms

FEWEST_VOICES, MOST_VOICES = 3, 8
VOICE_DB = 3.0  # each voice of the babble is up to this much louder or softer than their average
_FLAT = ("train", "valid", "test")
_TRIES = 20
_NAMES = "talkers are told apart by file names such as p226_001.wav, or by a folder each"


def talker(path: Path) -> str:
    """Who speaks in a file: the beginning of its name, else the name of its folder.

    The beginning reaches to the first "_" (in names without one, "-") and counts when it holds a digit (p226_001,
    19-198-0000), or when the file lies directly in train/, valid/ or test/. In all other corpora each talker needs a
    folder (FCJF0/SA1).
    """
    separator = "_" if "_" in path.stem else "-"
    beginning, found, _ = path.stem.partition(separator)
    if found and (any(c.isdigit() for c in beginning) or path.parent.name in _FLAT):
        return beginning
    return path.parent.name


def change_speed(waveform: np.ndarray, speed: float, sample_rate: int) -> np.ndarray:
    """`waveform` [N] as somebody says it who speaks `speed` times as fast, pitch and formants and all [N / speed].

    For a d-vector that is another talker. 1 changes nothing.
    """
    return audio.resample(waveform, round(speed * sample_rate), sample_rate)


class Talkers:
    """The speech files by talker, as a source of noise. Raises `UserError` where there are too few for it."""

    def __init__(self, speech: Sequence[AudioInfo], sample_rate: int) -> None:
        self.files: dict[str, list[AudioInfo]] = {}
        for info in speech:
            self.files.setdefault(talker(info.path), []).append(info)
        self.sample_rate = sample_rate

    @property
    def give_babble(self) -> bool:
        """Whether every clean speech finds enough other talkers for babble."""
        return len(self.files) > FEWEST_VOICES

    @property
    def give_competitors(self) -> bool:
        """Whether every clean speech finds another talker who has one file to say and one for the reference."""
        return self._several > 1

    @property
    def _several(self) -> int:
        return sum(len(files) > 1 for files in self.files.values())

    def check(self, babble: bool, competing: bool) -> None:
        """Raise `UserError` unless every clean speech finds enough other talkers for the kinds asked for."""
        found = f"the training speech has {len(self.files)} talkers, {self._several} of them with two files or more"
        if babble and not self.give_babble:
            raise UserError(f"--babble_share needs {FEWEST_VOICES + 1} talkers or more, but {found}; {_NAMES}")
        if competing and not self.give_competitors:
            raise UserError(f"--talker_share needs two talkers with two files or more, but {found}; {_NAMES}")

    def babble(self, target: str, lengths: CutLengths, rng: np.random.Generator) -> Cut:
        """Three to eight talkers other than `target` at once; the reference is another stretch of the same voices."""
        rate = self.sample_rate
        others = [name for name in self.files if name != target]
        for _ in range(_TRIES):
            number = int(rng.integers(FEWEST_VOICES, min(MOST_VOICES, len(others)) + 1))
            names = [others[i] for i in rng.permutation(len(others))[:number]]
            voices = [self._speech(self.files[name], lengths.clip_length(rate), rng) for name in names]
            longest_s = min(lengths.max_s, references.MAX_SHARE * min(map(len, voices)) / rate)
            if longest_s < lengths.min_s:
                continue
            reference_s = rng.uniform(lengths.min_s, longest_s)
            cuts = [cut_clip(v, CutLengths(lengths.length, reference_s, reference_s), rate, rng) for v in voices]
            if all(len(cut.reference) and not is_silent(cut.noise) for cut in cuts):
                return _sum_voices(cuts, rng)
        raise UserError(
            f"--babble_share: the talkers drawn have too little speech for a reference of {lengths.min_s:.2f} s; "
            "give longer speech files or a smaller --reference_s"
        )

    def competing(self, target: str, lengths: CutLengths, rng: np.random.Generator, speed: float = 1.0) -> Cut:
        """One talker other than `target`; the reference is from a file that the noise has no part in.

        speed: of the talker in both, see `change_speed`.
        """
        rate, length = self.sample_rate, lengths.length
        lengths = lengths.scale(round(speed * rate) / rate)
        names = [name for name, files in self.files.items() if name != target and len(files) > 1]
        for _ in range(_TRIES):
            files = self.files[names[rng.integers(len(names))]]
            first, *rest = (files[i] for i in rng.permutation(len(files)))
            utterance = read_clip(first, round(lengths.max_s * rate), rate, rng)
            speech = self._speech(rest, lengths.length, rng)
            shortest, longest = round(lengths.min_s * rate), min(round(lengths.max_s * rate), len(utterance))
            if longest < shortest or is_silent(speech) or is_silent(utterance):
                continue
            noise = references.sounding_segment(speech, lengths.length, rate, rng)
            reference = references.sounding_segment(utterance, int(rng.integers(shortest, longest + 1)), rate, rng)
            if not (is_silent(noise) or is_silent(reference)):
                looped, noise = len(speech) < lengths.length, change_speed(noise, speed, rate)[:length]
                return Cut(match_level(change_speed(reference, speed, rate), noise), noise, looped)
        raise UserError(
            f"--talker_share: the talkers drawn have no file of {lengths.min_s:.2f} s; give longer speech files or a "
            "smaller --reference_s"
        )

    def _speech(self, files: Sequence[AudioInfo], length: int, rng: np.random.Generator) -> np.ndarray:
        """Utterances of one talker [K], in random order over cross-fades, K >= `length` if the files last so long."""
        joined = np.zeros(0, dtype=np.float32)
        for i in rng.permutation(len(files)):
            joined = crossfade(joined, read_clip(files[i], length, self.sample_rate, rng), self.sample_rate)
            if len(joined) >= length:
                break
        return joined


def _sum_voices(cuts: Sequence[Cut], rng: np.random.Generator) -> Cut:
    """Voices summed at about one level, references by the same gains; the sum has the level of synthetic noise."""
    gains = [np.float32(10 ** (rng.uniform(-VOICE_DB, VOICE_DB) / 20) / rms(cut.noise)) for cut in cuts]
    noise = np.sum([gain * cut.noise for gain, cut in zip(gains, cuts, strict=True)], axis=0)
    reference = np.sum([gain * cut.reference for gain, cut in zip(gains, cuts, strict=True)], axis=0)
    scaled = with_rms(noise)
    return Cut(reference * np.float32(rms(scaled) / rms(noise)), scaled, any(cut.looped for cut in cuts))
