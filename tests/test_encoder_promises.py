"""What every noise encoder promises, ours and plug-ins: `ENCODER=my_lab:Mine python -m pytest THIS_FILE` tests yours.

Pretrained ones have random weights here and are trained along, which asks the most of them.
"""

import os
from dataclasses import asdict

import pytest
import torch
from torch import Tensor

from sgmse.diffusion.conditioning import Condition
from sgmse.diffusion.transform import SpectrogramTransform
from sgmse.encoders import ENCODERS
from sgmse.encoders.base import NoiseEncoder
from sgmse.settings.config import ModelConfig

RATE = 16000
VARIANTS = {name: {"encoder": name} for name in (*ENCODERS, *os.environ.get("ENCODER", "").split())}
VARIANTS["sequence in bands"] = {"encoder": "sequence", "token_bands": 4}


def build(**changes: object) -> NoiseEncoder:
    config = ModelConfig(cond_dim=32, encoder_channels=4, encoder_checkpoint="random", freeze_encoder=False)
    settings = asdict(config) | {"cross_attention_resolutions": [16]} | changes
    transform = SpectrogramTransform(config.n_fft, config.hop_length, config.spec_factor, config.spec_abs_exponent)
    torch.manual_seed(0)
    return ENCODERS[settings["encoder"]].from_settings(settings, transform)


@pytest.fixture(scope="module", params=VARIANTS.values(), ids=VARIANTS)
def encoder(request: pytest.FixtureRequest) -> NoiseEncoder:
    return build(**request.param).train()


def recording(seed: int, samples: int = RATE) -> Tensor:
    """[samples] of white noise."""
    return 0.1 * torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def encode(encoder: NoiseEncoder, *references: Tensor, beyond: float = 0.0) -> Condition:
    """References of different lengths as one batch; what lies beyond their ends is noise of that level."""
    longest = max(len(reference) for reference in references)
    padded = [torch.cat([r, beyond * recording(99, longest - len(r))]) for r in references]
    return encoder(torch.stack(padded), torch.tensor([len(reference) for reference in references]))


def distance(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@torch.no_grad()
def test_it_gives_a_finite_vector_for_any_length_and_tokens_as_its_card_says(encoder):
    condition = encode(encoder, *(recording(0, samples) for samples in (0, 1, 300, 2 * RATE)))
    assert condition.vector.shape == (4, encoder.dim)
    assert condition.vector.isfinite().all()
    assert (condition.tokens is not None) == encoder.card.gives_tokens
    if condition.tokens is not None:
        assert condition.tokens.isfinite().all()
        assert condition.tokens.shape[::2] == (4, encoder.dim)
        assert condition.mask.shape == condition.tokens.shape[:2]
        assert condition.mask[3].sum() > condition.mask[2].sum() > 0, "a longer reference has more tokens"


@torch.no_grad()
def test_padding_and_the_other_items_of_a_batch_change_nothing(encoder):
    short, long = recording(1, 5000), recording(2, 14000)
    alone, together = encode(encoder, short), encode(encoder, short, long, beyond=1.0)
    torch.testing.assert_close(together.vector[:1], alone.vector, rtol=1e-4, atol=1e-4)
    if alone.tokens is not None:
        valid = alone.mask[0]
        assert torch.equal(together.mask[0, : len(valid)], valid)
        assert not together.mask[0, len(valid) :].any()
        torch.testing.assert_close(
            together.tokens[0, : len(valid)][valid], alone.tokens[0][valid], rtol=1e-4, atol=1e-4
        )


@torch.no_grad()
def test_level_and_spectrum_of_the_reference_arrive(encoder):
    """Both move the vector; one trained from scratch more than another draw of the same noise does."""
    reference = recording(3)
    low_passed = torch.nn.functional.avg_pool1d(reference[None], 9, 1, 4)[0]
    coloured = low_passed * reference.norm() / low_passed.norm()
    vector, louder, redrawn, other = encode(encoder, reference, 4 * reference, recording(4), coloured).vector
    least = 0.02 if encoder.card.pretrained else 2 * distance(redrawn, vector)
    assert distance(louder, vector) > least
    assert distance(other, vector) > least


def test_gradients_reach_the_reference_and_every_weight_that_is_trained(encoder):
    encoder.zero_grad()
    reference = recording(5).requires_grad_()
    condition = encode(encoder, reference)
    total = condition.vector.square().sum()
    (total if condition.tokens is None else total + condition.tokens.square().sum()).backward()
    assert reference.grad.abs().sum() > 0
    trained = {name: weight for name, weight in encoder.named_parameters() if weight.requires_grad}
    assert [name for name, w in trained.items() if w.grad is None or not w.grad.abs().sum() > 0] == []
    assert trained


@torch.no_grad()
def test_training_sees_what_enhancement_sees(encoder):
    """Neither augmentation nor dropout nor the statistics of a batch: the condition is a function of the reference."""
    condition = encode(encoder, recording(6))
    torch.testing.assert_close(encode(encoder, recording(6)).vector, condition.vector)
    torch.testing.assert_close(encode(encoder.eval(), recording(6)).vector, condition.vector, rtol=1e-4, atol=1e-5)
    encoder.train()


PRETRAINED = {name: changes for name, changes in VARIANTS.items() if ENCODERS[changes["encoder"]].card.pretrained}


@pytest.mark.parametrize("changes", PRETRAINED.values(), ids=PRETRAINED)
def test_a_frozen_one_has_no_gradient_in_its_pretrained_weights_and_keeps_them_out_of_checkpoints(changes):
    trained = {id(weight) for weight in build(**changes).pretrained_parameters()}
    assert trained
    frozen = build(**changes, freeze_encoder=True).train()
    encode(frozen, recording(7)).vector.sum().backward()
    assert frozen.pretrained_parameters() == []
    weights = dict(frozen.named_parameters())
    assert {name for name in weights if weights[name].requires_grad} >= set(frozen.state_dict())
    assert all(weight.grad is None for weight in weights.values() if not weight.requires_grad)
