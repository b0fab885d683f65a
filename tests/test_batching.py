"""Several waveforms per call: who shares one, and that sharing changes nothing, or little where lengths differ."""

import numpy as np
import pytest
import torch
from tiny import tiny

from sgmse.diffusion.guidance import GuidanceSettings
from sgmse.diffusion.samplers import SamplerSettings
from sgmse.enhancement.old.engine import MAX_PADDING, Row, buckets, enhance_rows

SDE = SamplerSettings(sampler="bridge_sde", N=2)


@pytest.fixture(scope="module")
def model():
    return tiny().eval()


def row(length: int, seed: int, reference: int | None = 6000) -> Row:
    generator = torch.Generator().manual_seed(seed)
    noisy = torch.randn(length, generator=generator) * 0.1 * (1 + seed)
    return Row(noisy, None if reference is None else torch.randn(reference, generator=generator), f"0 {seed}")


def agreement_db(expected: torch.Tensor, actual: torch.Tensor) -> float:
    return (10 * (expected.square().sum() / (actual - expected).square().sum().clamp_min(1e-30)).log10()).item()


def enhanced(model, rows, batch_size):
    return enhance_rows(model, rows, batch_size, GuidanceSettings(guidance_scale=2.0), SDE, 0.03)


def test_files_alike_in_length_share_a_batch_the_longest_first():
    lengths = [100, 50, 98, 99, 51, 10]
    assert buckets(lengths, [1] * 6, 4) == [[0, 3, 2], [4, 1], [5]]
    assert all(min(lengths[i] for i in b) >= (1 - MAX_PADDING) * lengths[b[0]] for b in buckets(lengths, [1] * 6, 4))


def test_a_batch_holds_no_more_waveforms_than_asked_unless_one_file_has_more():
    assert buckets([10] * 5, [1, 2, 1, 1, 9], 3) == [[0, 1], [2, 3], [4]]


def test_with_a_batch_size_of_one_the_order_stays():
    assert buckets([1, 3, 2], [1, 1, 1], 1) == [[0], [1], [2]]


def test_waveforms_of_equal_length_come_out_as_if_alone(model):
    """References of three lengths, one of them absent."""
    rows = [row(4000, 0), row(4000, 1, 9000), row(4000, 2, None), row(4000, 3, 3000)]
    for one, four in zip(enhanced(model, rows, 1), enhanced(model, rows, 4), strict=True):
        assert agreement_db(one.waveform, four.waveform) > 100
        assert one.null == four.null


def test_waveforms_of_equal_frames_come_out_as_if_alone(model):
    """16 frames each, the last one cut at another place."""
    rows = [row(1920 + 30 * seed, seed) for seed in range(4)]
    for one, four in zip(enhanced(model, rows, 1), enhanced(model, rows, 4), strict=True):
        assert len(one.waveform) == len(four.waveform)
        assert agreement_db(one.waveform, four.waveform) > 100


def test_padding_to_the_longest_of_a_bucket_changes_little_away_from_the_end(model):
    """A network with random weights; at the end it sees other frames where it would see zeros alone."""
    rows = [row(round(32000 * (1 - MAX_PADDING * k / 3)), k) for k in range(4)]
    alone, together = (
        enhance_rows(model, rows, size, GuidanceSettings(), SamplerSettings(N=1), 0.03) for size in (1, 4)
    )
    pairs = list(zip(alone, together, strict=True))
    assert agreement_db(pairs[0][0].waveform, pairs[0][1].waveform) > 100  # the longest is not padded
    assert min(agreement_db(one.waveform[:28000], four.waveform[:28000]) for one, four in pairs) > 30
    assert min(agreement_db(one.waveform, four.waveform) for one, four in pairs) > 15
    assert [len(four.waveform) for _, four in pairs] == [len(r.noisy) for r in rows]


def test_noise_belongs_to_the_row_and_not_to_its_place(model):
    rows = [row(4000, seed) for seed in range(3)]
    forwards, backwards = enhanced(model, rows, 3), enhanced(model, rows[::-1], 3)[::-1]
    for one, other in zip(forwards, backwards, strict=True):
        assert agreement_db(one.waveform, other.waveform) > 100


def test_rows_of_one_key_draw_the_same_noise(model):
    same = [Row(row(4000, 0).noisy, None, "key")] * 2
    first, second = enhanced(model, same, 2)
    assert np.allclose(first.waveform, second.waveform, atol=1e-6)


def test_the_network_is_called_once_per_batch(model):
    calls = []
    handle = model.backbone.register_forward_hook(lambda module, inputs, output: calls.append(len(output)))
    enhance_rows(model, [row(4000, seed) for seed in range(5)], 2, GuidanceSettings(), SamplerSettings(N=1), 0.03)
    handle.remove()
    assert calls == [2, 2, 1]
