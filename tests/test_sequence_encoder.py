"""The sequence encoder: tokens over time and frequency bands."""

import pytest
import torch

from sgmse.diffusion.conditioning import Condition, centres, sinusoids
from sgmse.diffusion.transform import SpectrogramTransform
from sgmse.encoders.sequence import SequenceNoiseEncoder, stretches

SECOND = 16000


def encoder(dim: int = 16, num_tokens: int = 4, token_bands: int = 1) -> SequenceNoiseEncoder:
    return SequenceNoiseEncoder(SpectrogramTransform(510, 128, 0.15, 0.5), dim, 4, num_tokens, token_bands)


def encode(net: SequenceNoiseEncoder, *references: torch.Tensor, beyond: float = 0.0) -> Condition:
    """References of different lengths as one batch; what lies beyond their ends is noise of that level."""
    longest = max(len(r) for r in references)
    padded = [torch.cat([r, beyond * torch.randn(longest - len(r))]) for r in references]
    return net(torch.stack(padded), torch.tensor([len(r) for r in references]))


@pytest.mark.parametrize(("bands", "tokens"), [(1, 16), (4, 64)])
def test_two_seconds_fill_16_time_steps_of_512_values(bands, tokens):
    settings = {"cond_dim": 512, "encoder_channels": 2, "num_tokens": 16, "token_bands": bands}
    net = SequenceNoiseEncoder.from_settings(settings, encoder().transform)
    condition = encode(net, torch.randn(2 * SECOND))
    assert condition.tokens.shape == (1, tokens, 512)
    assert condition.mask.all()
    assert condition.vector.shape == (1, 512)


def test_a_short_reference_has_as_many_time_steps_as_frames():
    net = encoder(num_tokens=8, token_bands=2)
    # frames wholly inside: (n − 255) // 128 + 1, then halved four times, rounding up
    samples = (0, 100, 4000, SECOND, 4 * SECOND)
    condition = encode(net, *(torch.randn(n) for n in samples))
    assert condition.mask.sum(dim=1).tolist() == [2 * 1, 2 * 1, 2 * 2, 2 * 8, 2 * 8]
    assert torch.equal(condition.mask, condition.mask.sort(dim=1, descending=True).values)
    assert not condition.tokens[~condition.mask].any()
    assert all(torch.isfinite(part).all() for part in (condition.vector, condition.tokens))


def test_the_vector_is_made_of_the_time_steps_that_there_are():
    few, many = encoder(num_tokens=2), encoder(num_tokens=8)
    many.load_state_dict(few.state_dict())
    reference = torch.randn(4000)  # two time steps
    torch.testing.assert_close(encode(many, reference).vector, encode(few, reference).vector)


def test_stretches_average_equal_parts_of_the_valid_frames():
    weights = stretches(torch.tensor([2, 5, 8]), count=4, total=8)
    frames = torch.arange(8.0)
    assert torch.equal(weights[0, :2] @ frames, torch.tensor([0.0, 1.0]))
    # five frames in four stretches of 1.25: [0, 1.25), [1.25, 2.5), …
    expected = [(0 + 0.25 * 1) / 1.25, (0.75 * 1 + 0.5 * 2) / 1.25, (0.5 * 2 + 0.75 * 3) / 1.25, (0.25 * 3 + 4) / 1.25]
    torch.testing.assert_close(weights[1] @ frames, torch.tensor(expected))
    torch.testing.assert_close(weights[2] @ frames, torch.tensor([0.5, 2.5, 4.5, 6.5]))


def test_tokens_tell_when_the_reference_changes_and_the_vector_how_loud_it_is():
    net = encoder()
    quiet, another_draw = 0.01 * torch.randn(2, 2 * SECOND)
    changing = torch.where(torch.arange(2 * SECOND) < SECOND, quiet, 20 * quiet)
    with torch.no_grad():
        steady, changed, louder, redrawn = (encode(net, r) for r in (quiet, changing, 4 * quiet, another_draw))
    torch.testing.assert_close(changed.tokens[:, 0], steady.tokens[:, 0])
    moved = (changed.tokens - steady.tokens)[:, 3].norm()
    assert moved > 2 * (redrawn.tokens - steady.tokens)[:, 3].norm()
    assert (louder.vector - steady.vector).norm() > 2 * (redrawn.vector - steady.vector).norm()


def test_tokens_of_bands_change_with_their_own_band():
    net = encoder(token_bands=8)
    noise = 0.01 * torch.randn(2 * SECOND)
    tone = 0.1 * torch.sin(2 * torch.pi * 6500 * torch.arange(2 * SECOND) / SECOND)  # in the seventh of eight bands
    moved = (encode(net, noise + tone).tokens - encode(net, noise).tokens).norm(dim=-1).reshape(4, 8)
    assert moved.mean(dim=0).argmax() == 6
    assert (moved[:, 6] > 5 * moved[:, :4].amax(dim=1)).all()


def test_positions_name_frequency_and_relative_time():
    net = encoder(dim=16, num_tokens=4, token_bands=4)
    torch.nn.init.zeros_(net.token.weight)
    torch.nn.init.zeros_(net.token.bias)
    condition = encode(net, torch.randn(4 * SECOND), torch.randn(4000))  # four time steps, and two
    long, short = condition.tokens.reshape(2, 4, 4, 16)
    device = torch.device("cpu")
    for step in long:
        torch.testing.assert_close(step[:, :8], sinusoids(centres(4, device), 8))
    torch.testing.assert_close(long[:, 0, 8:], sinusoids(centres(4, device), 8))
    torch.testing.assert_close(short[:2, 0, 8:], sinusoids(centres(2, device), 8))


def test_more_bands_than_rows_are_refused():
    assert encoder(token_bands=16).token_bands == 16
    with pytest.raises(ValueError, match="use at most 16"):
        encoder(token_bands=17)
