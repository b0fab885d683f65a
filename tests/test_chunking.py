"""Long recordings in parts: the parts cover the file, the noise coincides, and memory does not grow."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from commands import saved_run
from small_corpora import save
from tiny import tiny

from sgmse.data import audio
from sgmse.diffusion.noise import BLOCK, FrameNoise
from sgmse.model.chunking import Chunks, cut_parts, join_parts
from sgmse.model.enhancer import Enhancer

LENGTH = 10007


def noise(length: int, channels: int = 1) -> np.ndarray:
    return (0.1 * np.random.default_rng(length).standard_normal((channels, length))).astype(np.float32)


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (3000, 500), (3000, 2500), (3000, 100), (9900, 9800)])
def test_parts_of_a_signal_join_to_the_signal(size, overlap):
    signal = noise(LENGTH, 2)
    spans = Chunks(size, overlap, 100).spans(LENGTH)
    blocks = (signal[:, begin : begin + 777] for begin in range(0, LENGTH, 777))
    parts = list(cut_parts(blocks, spans))
    assert [part.shape[-1] for part in parts] == [end - start for start, end in spans]
    assert np.allclose(np.concatenate(list(join_parts(parts, spans, overlap)), axis=1), signal, atol=1e-6)


def test_parts_begin_at_frames_share_the_overlap_and_are_all_whole():
    chunks = Chunks(3000, 500, 100)
    spans = chunks.spans(LENGTH)
    assert all(start % 100 == 0 and 3000 <= end - start < 3100 for start, end in spans)
    assert spans[-1][1] == LENGTH
    shared = [before[1] - after[0] for before, after in pairwise(spans)]
    assert shared[:-1] == [500] * (len(shared) - 1)
    assert shared[-1] >= 500


def test_a_cross_fade_between_two_levels_is_linear_and_keeps_their_sum():
    spans = [(0, 300), (200, 500)]
    result = np.concatenate(list(join_parts([np.zeros((1, 300)), np.ones((1, 300))], spans, 100)), axis=1)[0]
    assert np.allclose(result[:200], 0)
    assert np.allclose(result[200:300], (np.arange(100) + 0.5) / 100)
    assert np.allclose(result[300:], 1)


def test_the_frames_of_a_part_need_no_padding_for_the_network():
    chunks = Chunks.from_seconds(chunk_s=2.0, overlap_s=0.5, rate=16000, hop=128, frame_multiple=64)
    assert (chunks.size // 128 + 1) % 64 == 0
    assert abs(chunks.size / 16000 - 2.0) <= 0.26
    assert chunks.overlap % 128 == 0


def test_noise_is_the_same_wherever_a_part_begins_and_whoever_shares_the_batch():
    whole, like = FrameNoise(["a", "b"]), torch.zeros(2, 1, 5, 3 * BLOCK, dtype=torch.complex64)
    for first in (0, 7, BLOCK, 2 * BLOCK - 1):
        source, alone = FrameNoise(["a", "b"]), FrameNoise(["b"], first)
        for _ in range(2):  # the n-th draw of both
            expected = source(like)[1:, ..., first : first + BLOCK]
            assert torch.equal(alone(like[:1, ..., :BLOCK]), expected)
    first_draw, second_draw = whole(like), whole(like)
    assert (first_draw[0] != first_draw[1]).any()
    assert (first_draw != second_draw).any()


def test_noise_is_complex_standard_normal():
    drawn = FrameNoise(["a"])(torch.zeros(1, 1, 256, 400, dtype=torch.complex64))
    assert drawn.abs().square().mean().item() == pytest.approx(1, abs=0.02)
    assert drawn.mean().abs().item() < 0.02


@pytest.mark.parametrize("rates", [(16000, 16000), (44100, 16000), (8000, 16000)])
@pytest.mark.parametrize("suffix", ["wav", "flac", "mp3"])
def test_a_stream_is_the_file_as_it_is_read_whole(tmp_path, monkeypatch, rates, suffix):
    monkeypatch.setattr(audio, "_BLOCK", 4096)
    path = tmp_path / f"a.{suffix}"
    audio.write(path, noise(30001, 2), rates[0])
    for mix in (False, True):
        streamed = np.concatenate(list(audio.read_blocks(path, rates[1], mix)), axis=1)
        assert np.allclose(streamed, np.atleast_2d(audio.read(path, rates[1], mono=mix)), atol=1e-6)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_file_written_in_blocks_is_the_file_written_at_once(tmp_path, suffix):
    signal = 30 * noise(30001, 2)  # beyond 1
    at_once, in_blocks = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    peak = audio.write(at_once, signal, 16000)
    assert audio.write_blocks(in_blocks, np.array_split(signal, 7, axis=1), 16000, 2) == peak > 1
    assert at_once.read_bytes() == in_blocks.read_bytes() or np.array_equal(
        audio.read(at_once, None, mono=False), audio.read(in_blocks, None, mono=False)
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{suffix}", f"b.{suffix}"]


def test_a_write_that_fails_in_the_middle_leaves_nothing(tmp_path):
    def blocks():
        yield noise(1000)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audio.write_blocks(tmp_path / "a.wav", blocks(), 16000, 1)
    assert list(tmp_path.iterdir()) == []


def test_parts_change_nothing_for_a_network_that_looks_at_single_frames(monkeypatch):
    """Then only the normalisation, the noise and the cross-fade could differ."""
    model = tiny(encoder="none").eval()
    monkeypatch.setattr(model, "predict", lambda x_t, y, t, condition: 0.3 * x_t + 0.5 * y)
    length = 59904  # its frames need no padding
    waveform = noise(length)[0] * np.linspace(0.1, 1, length, dtype=np.float32)
    model.sampler = type(model.sampler)(sampler="bridge_sde", N=3)
    whole = model.enhance(waveform, 16000)
    parts = model.enhance(waveform, 16000, chunk_s=1.0, overlap_s=0.25)
    error = np.sum((parts - whole) ** 2) / np.sum(whole**2)
    assert error < 1e-4  # what is left comes from the frames at the edges, which see a reflection
    assert np.allclose(parts[:8000], whole[:8000], atol=1e-5)
    other = model.enhance(waveform, 16000, seed=1)
    assert np.sum((other - whole) ** 2) / np.sum(whole**2) > 0.001


def test_a_long_file_is_read_and_enhanced_part_by_part(tmp_path, monkeypatch):
    """No array that passes through is longer than a part."""
    from sgmse.commands import enhance as enhancement

    ckpt = saved_run(tmp_path / "logs" / "run")
    save(tmp_path / "noisy" / "long.wav", 12.0, 16000)
    monkeypatch.setattr(audio, "_BLOCK", 8192)
    longest = []
    work = Enhancer.enhance_batch

    def watched(self, window, *rest, **options):
        longest.append(window.shape[-1])
        return work(self, window, *rest, **options)

    monkeypatch.setattr(Enhancer, "enhance_batch", watched)
    monkeypatch.setattr(audio, "read", refuse_whole(audio.read))
    out = tmp_path / "out"
    flags = [f"--ckpt={ckpt}", f"--test_dir={tmp_path / 'noisy'}", f"--enhanced_dir={out}", "--chunk_s=2.5"]
    monkeypatch.setattr("sys.argv", ["x", *flags, "--reference=none"])
    enhancement.main()
    assert len(longest) > 4
    assert max(longest) < 3 * 16000
    assert audio.read(out / "long.wav", None, duration_s=12.0).any()
    assert audio.info(out / "long.wav").num_frames == 12 * 16000


def refuse_whole(read):
    def bounded(path, sample_rate, start_s=0.0, duration_s=None, mono=True):
        assert duration_s is not None, "a long file was read whole"
        return read(path, sample_rate, start_s, duration_s, mono)

    return bounded
