"""Recordings of any length in parts: where the parts lie, and how their results are joined."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

Span = tuple[int, int]  # [start, end) in samples


@dataclass(frozen=True)
class Chunks:
    """Parts of `size` samples, each sharing `overlap` with the next; multiples of `hop`, so that frames coincide.

    size 0: the whole recording.
    """

    size: int
    overlap: int
    hop: int

    @classmethod
    def from_seconds(cls, chunk_s: float, overlap_s: float, rate: int, hop: int, frame_multiple: int) -> Chunks:
        """The size is rounded so that a part's frames need no padding for the network."""
        frames = max(1, round((chunk_s * rate / hop + 1) / frame_multiple)) * frame_multiple
        size = (frames - 1) * hop if chunk_s else 0
        overlap = max(1, round(overlap_s * rate / hop)) * hop
        return cls(size, min(overlap, max(0, size - hop)), hop)

    def spans(self, length: int) -> list[Span]:
        """The parts of a recording; the last one begins early enough to be whole."""
        if not self.size or length <= self.size:
            return [(0, length)]
        last = (length - self.size) // self.hop * self.hop
        return [(start, start + self.size) for start in range(0, last, self.size - self.overlap)] + [(last, length)]


def cut_parts(blocks: Iterable[np.ndarray], spans: list[Span]) -> Iterator[np.ndarray]:
    """The parts `spans` [C, end − start] of consecutive blocks [C, n], of which no more is kept than needed."""
    source = iter(blocks)
    held, begin = next(source), 0
    for start, end in spans:
        pieces = [held[:, start - begin :]]
        reached = begin + held.shape[-1]
        while reached < end:
            pieces.append(next(source))
            reached += pieces[-1].shape[-1]
        held, begin = np.concatenate(pieces, axis=-1), start
        yield held[:, : end - start]


def join_parts(parts: Iterable[np.ndarray], spans: list[Span], overlap: int) -> Iterator[np.ndarray]:
    """Consecutive blocks [R, n] out of parts [R, end − start]: equal-gain cross-fades over `overlap` samples.

    Where more than two parts meet, or the last two meet for longer, their weights are divided by their sum.
    """
    ramp = (np.arange(overlap, dtype=np.float32) + 0.5) / max(1, overlap)
    total, weight, begin = np.zeros((1, 0), np.float32), np.zeros(0, np.float32), 0
    for index, (part, (start, end)) in enumerate(zip(parts, spans, strict=True)):
        gain = np.ones(end - start, np.float32)
        if index > 0:
            gain[:overlap] *= ramp
        if index + 1 < len(spans):
            gain[len(gain) - overlap :] *= ramp[::-1]
        missing = end - begin - len(weight)
        weight = np.pad(weight, (0, missing))
        total = np.pad(np.broadcast_to(total, (len(part), total.shape[-1])), ((0, 0), (0, missing)))
        total[:, start - begin :] += gain * part
        weight[start - begin :] += gain
        finished = (spans[index + 1][0] if index + 1 < len(spans) else end) - begin
        yield total[:, :finished] / weight[:finished]
        total, weight, begin = total[:, finished:], weight[finished:], begin + finished
