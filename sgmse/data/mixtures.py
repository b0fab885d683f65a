"""Dynamic mixing: speech, a noise and a disjoint reference of it, mixed on the fly, with or without variation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from sgmse.common.errors import UserError
from sgmse.data import audio, references
from sgmse.data.audio import AudioInfo
from sgmse.data.dataset import Item, ItemSettings, KeyedDataset, draw_index
from sgmse.data.mixing import SILENCE_RMS, crop_or_pad, is_silent, rms, snr_gain
from sgmse.data.noise import Cut, CutLengths, NoiseFiles, augment, draw_synthetic, match_level
from sgmse.data.noise.augment import Augmentation, Transform
from sgmse.data.noise.talkers import Talkers, change_speed, talker

_TRIES = 20
_NOISE_STREAM, _SOURCE_STREAM, _TRANSFORM_STREAM, _REFERENCE_STREAM, _ROOM_STREAM, _VOICE_STREAM = range(2, 8)


@dataclass(frozen=True)
class Variation:
    """What makes mixtures more various than their corpora are; nothing by default.

    Each share is that of the items it happens to. Noise comes from one source: a procedure (`synthetic_share`), babble,
    a competing talker, or else the noise files. voice_speed: how much faster or slower talkers speak. rirs: room
    impulse responses for the speech.
    """

    augmentation: Augmentation = field(default_factory=Augmentation)
    synthetic_share: float = 0.0
    babble_share: float = 0.0
    talker_share: float = 0.0
    voice_speed: float = 0.0
    mismatched_share: float = 0.0
    reference_gain_db: float = 0.0
    rirs: tuple[AudioInfo, ...] = ()
    rir_share: float = 0.0


class DynamicMixing(KeyedDataset):
    """Speech and noise mixed on the fly, with a disjoint reference from the same noise file.

    Neighbouring keys have different noise files. With `with_reference=False` the reference is cut and thrown away, so
    that models with and without references train on the very same mixtures. Each kind of variation has random numbers
    of its own: switching one on changes neither speech crop, nor ratio, nor the items it does not happen to; only
    `voice_speed` takes other crops, and with them other ratios, of the items whose speed it changes.
    """

    def __init__(
        self,
        speech: Sequence[AudioInfo],
        noise: Sequence[AudioInfo],
        settings: ItemSettings,
        snr_db_low: float = -5.0,
        snr_db_high: float = 15.0,
        variation: Variation | None = None,
    ) -> None:
        super().__init__(len(speech), settings)
        self.speech, self.noise = list(speech), list(noise)
        self.snr_db = (snr_db_low, snr_db_high)
        self.variation = variation or Variation()
        self._files = NoiseFiles(self.noise, settings.sample_rate)
        self._talkers = Talkers(self.speech, settings.sample_rate)
        v = self.variation
        self._talkers.check(v.babble_share > 0, v.talker_share > 0)
        needs = {"--noise_augment mix": v.augmentation.mix, "--noise_augment concatenate": v.augmentation.concatenate}
        for flag, share in (needs | {"--mismatched_share": v.mismatched_share}).items():
            if share > 0 and len(self.noise) < 2:
                raise UserError(f"{flag} needs a second noise file, but there is one in all; add noise or leave it out")

    def _info(self, index: int) -> AudioInfo:
        return self.speech[index]

    def _draw(self, key: int, length: int, rng: np.random.Generator) -> Item:
        lengths = CutLengths(length, self.settings.reference_min_s, self.settings.reference_max_s)
        info, clean = self._clean(key, length, rng)
        cut = self._files.cut(self._noise_index(key), lengths, rng)
        snr_db = rng.uniform(*self.snr_db)
        if self.variation != Variation():
            clean = self._in_a_room(key, clean)
            cut = self._varied_reference(key, self._varied_noise(key, cut, lengths, talker(info.path)), lengths)
        # The ratio holds for the whole file, as in test sets: a crop of a pause is noisier, one of a loud word cleaner.
        level = max(audio.measure_rms(info.path, self.sample_rate), SILENCE_RMS)
        gain = np.float32(snr_gain(level, rms(cut.noise), snr_db))
        reference = gain * cut.reference if self.settings.with_reference else references.NO_REFERENCE
        return Item(clean, clean + gain * cut.noise, reference, info.path.stem, cut.looped)

    def _clean(self, key: int, length: int, rng: np.random.Generator) -> tuple[AudioInfo, np.ndarray]:
        """Speech [length] and its file. Silent crops are redrawn, at last from other files."""
        index, speed = self._file_index(key), self._speeds(key)[0]
        for attempt in range(_TRIES):
            info = self.speech[index]
            start_s, duration_s = info.draw_window(math.ceil(length * speed), self.sample_rate, rng)
            speech = audio.read(info.path, self.sample_rate, start_s, duration_s)
            clean = crop_or_pad(change_speed(speech, speed, self.sample_rate), length, rng)
            if not is_silent(clean):
                return info, clean
            if attempt >= _TRIES // 4:
                index = int(rng.integers(self.num_files))
        raise UserError(f"{info.path}: is silent, and so are the other speech files drawn; check the speech corpus")

    def _noise_index(self, key: int) -> int:
        return draw_index(key, len(self.noise), self.settings.seed, _NOISE_STREAM)

    def _varied_noise(self, key: int, plain: Cut, lengths: CutLengths, target: str) -> Cut:
        """The noise and its reference, from the source drawn and through the transform drawn."""
        transform = augment.draw(self.variation.augmentation, self._rng(_TRANSFORM_STREAM, key))
        rng = self._rng(_SOURCE_STREAM, key)
        source = transform.source(lengths)
        cut = self._source(key, transform, plain if source == lengths else None, source, target, rng)
        if transform.alpha is not None and len(cut.reference):
            seconds = len(cut.reference) / self.sample_rate
            taken = [self._noise_index(key), *cut.files]
            other = self._files.cut_other(taken, CutLengths(source.length, seconds, seconds), rng)
            if other is not None and len(other.reference) == len(cut.reference):
                cut = augment.blend(cut, other, transform.alpha)
        return transform(cut, lengths.length, self.sample_rate)

    def _source(
        self,
        key: int,
        transform: Transform,
        plain: Cut | None,
        lengths: CutLengths,
        target: str,
        rng: np.random.Generator,
    ) -> Cut:
        """A cut of the source drawn; `plain`, where it fits, is what the noise files give."""
        v, drawn = self.variation, rng.random()
        if drawn < v.synthetic_share:
            return draw_synthetic(lengths, self.sample_rate, rng)
        if drawn < v.synthetic_share + v.babble_share:
            return self._talkers.babble(target, lengths, rng)
        if drawn < v.synthetic_share + v.babble_share + v.talker_share:
            return self._talkers.competing(target, lengths, rng, self._speeds(key)[1])
        if transform.shares:
            return self._files.cut_several(self._noise_index(key), transform.shares, lengths, rng)
        return plain or self._files.cut(self._noise_index(key), lengths, rng)

    def _varied_reference(self, key: int, cut: Cut, lengths: CutLengths) -> Cut:
        """`cut` with another noise's reference for a share of the items, and at another level."""
        rng, v = self._rng(_REFERENCE_STREAM, key), self.variation
        gain_db, mismatched = rng.uniform(-1, 1) * v.reference_gain_db, rng.random() < v.mismatched_share
        reference = cut.reference
        if mismatched and len(reference):
            other = self._files.cut_other([self._noise_index(key), *cut.files], lengths, rng)
            reference = reference if other is None else match_level(other.reference, reference)
        return cut._replace(reference=reference * np.float32(10 ** (gain_db / 20)))

    def _in_a_room(self, key: int, speech: np.ndarray) -> np.ndarray:
        """`speech` [N], reverberant for a share of the items: then the target is too, for the task is the noise."""
        rng = self._rng(_ROOM_STREAM, key)
        if not rng.random() < self.variation.rir_share:
            return speech
        info = self.variation.rirs[rng.integers(len(self.variation.rirs))]
        first_channel = audio.read(info.path, self.sample_rate, mono=False)[0]
        if is_silent(first_channel):
            raise UserError(f"{info.path}: is silent, and no room answers with silence; remove it from --rir_dir")
        return augment.reverberate(speech, first_channel)

    def _speeds(self, key: int) -> tuple[float, float]:
        """How fast the target and the other talker speak, in percent steps, so that resampling stays cheap."""
        first, second = 1 + self._rng(_VOICE_STREAM, key).uniform(-1, 1, 2) * self.variation.voice_speed
        return round(first, 2), round(second, 2)

    def _rng(self, stream: int, key: int) -> np.random.Generator:
        return np.random.default_rng((self.settings.seed, stream, key))
