"""The backbones: NCSN++ against the published networks, and what holds for each of them."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from golden_numbers import as_complex, golden, relative_error

from sgmse.diffusion.conditioning import Condition
from sgmse.networks.layers import Network, ResidualBlock, check_nf, fold_frequency, to_spectrogram, unfold_frequency
from sgmse.networks.light import LightUNet
from sgmse.networks.ncsnpp import VARIANTS, NCSNpp
from sgmse.networks.published import rename


def ncsnpp(**sizes) -> NCSNpp:
    return NCSNpp(VARIANTS["ncsnpp_v2"], **{"nf": 8, "ch_mult": (1, 2), "num_res_blocks": 1, **sizes})


def light(**sizes) -> LightUNet:
    return LightUNet(32, **{"nf": 8, "ch_mult": (1, 2), "frequency_fold": 2, **sizes})


@pytest.fixture(params=[ncsnpp, partial(ncsnpp, film=True), light], ids=["ncsnpp", "film", "light"])
def small(request) -> Callable[..., Network]:
    """Makes a small network of either kind."""
    return request.param


def randomise(network: torch.nn.Module) -> None:
    """A fresh network is zero in many places and would hide mistakes."""
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)


def inputs(frames: int, height: int = 32) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    x, y = torch.randn(2, 2, 1, height, frames, dtype=torch.complex64)
    return x, y, torch.tensor([0.2, 0.9])


@pytest.mark.parametrize("variant", ["ncsnpp", "ncsnpp_v2", "ncsnpp_48k"])
def test_published_weights_give_the_published_output(variant):
    data = golden(f"{variant}_nf8")
    weights = {k.removeprefix("weights."): v for k, v in data.items() if k.startswith("weights.")}
    network = NCSNpp(VARIANTS[variant], nf=8)
    network.load_state_dict(rename(network, weights))
    with torch.no_grad():
        output = network(as_complex(data["x"]), as_complex(data["y"]), data["t"])
    assert relative_error(output, as_complex(data["output"])) < 1e-4


def test_any_number_of_frames_goes_through_and_keeps_its_length(small):
    network = small(ch_mult=(1, 1, 2))
    for frames in (1, 5, 8, 13):
        x, y, t = inputs(frames)
        assert network(x, y, t).shape == x.shape


def test_a_shift_common_to_a_group_arrives_only_after_the_norm():
    torch.manual_seed(0)
    x, embedding, condition = torch.randn(1, 8, 4, 4), torch.zeros(1, 4), Condition(torch.ones(1, 1))
    for film in (False, True):
        block = ResidualBlock(8, 8, 4, 1, film)
        randomise(block)
        torch.nn.init.zeros_(block.conv_in.weight)  # the convolution gives a constant, so the norm sees shifts only
        torch.nn.init.zeros_(block.conv_in.bias)
        torch.nn.init.zeros_(block.time_proj.bias)
        torch.nn.init.ones_(block.condition_proj.weight)
        arrives = not torch.allclose(block(x, embedding, condition), block(x, embedding, None), atol=1e-5)
        assert arrives == film


def test_condition_adds_exactly_nothing_at_initialisation_and_when_null(small):
    network = small(condition_dim=16)
    projections = [p for name, p in network.named_parameters() if "condition_proj" in name]
    randomise(network)
    for p in projections:
        torch.nn.init.zeros_(p)
    x, y, t = inputs(8)
    condition = Condition(torch.randn(2, 16))
    assert torch.equal(network(x, y, t, condition), network(x, y, t))
    for p in projections:
        torch.nn.init.normal_(p)
    assert not torch.allclose(network(x, y, t, condition), network(x, y, t))
    assert torch.equal(network(x, y, t, Condition(torch.zeros(2, 16))), network(x, y, t))


def test_a_fresh_network_has_projections_of_the_condition_that_are_zero(small):
    found = [p for name, p in small(condition_dim=16).named_parameters() if "condition_proj" in name]
    assert len(found) >= 3
    assert not any(p.any() for p in found)


def test_a_fresh_network_with_a_mask_returns_y(small):
    x, y, t = inputs(8)
    assert torch.equal(small(output_channels=4)(x, y, t), y)


def test_a_mask_and_a_term_make_the_estimate():
    y = torch.randn(2, 1, 4, 3, dtype=torch.complex64)
    output = torch.randn(2, 4, 4, 3)
    mask, term = torch.complex(output[:, 0], output[:, 1]), torch.complex(output[:, 2], output[:, 3])
    assert torch.allclose(to_spectrogram(output, y)[:, 0], (1 + mask) * y[:, 0] + 0.3 * term)
    assert torch.equal(to_spectrogram(output[:, :2], y)[:, 0], mask)


def test_folded_network_has_the_shape_of_its_input(small):
    x, y, t = inputs(8)
    for fold in (1, 4):
        assert small(frequency_fold=fold)(x, y, t).shape == x.shape
    folded = fold_frequency(x.real, 4)
    assert folded.shape == (2, 4, 8, 8)
    assert torch.equal(unfold_frequency(folded, 4), x.real)


def test_a_light_network_of_one_step_knows_neither_x_t_nor_t():
    network = light(one_step=True)
    randomise(network)
    x, y, t = inputs(8)
    assert torch.equal(network(x, y, t), network(y, y, torch.ones(2)))
    network = light()
    randomise(network)
    assert not torch.allclose(network(x, y, t), network(y, y, t))
    assert not torch.allclose(network(x, y, t), network(x, y, torch.ones(2)))


def test_a_light_network_hears_the_whole_file_at_every_frame():
    network = light()
    randomise(network)
    x, y, t = inputs(200)
    y.requires_grad_()
    network(x, y, t)[..., 0].abs().sum().backward()
    assert y.grad[..., -1].abs().sum() > 0


def test_every_parameter_receives_a_gradient(small):
    network = small(condition_dim=16, ch_mult=(1, 2, 2), frequency_fold=2)
    randomise(network)
    x, y, t = inputs(8)
    network(x, y, t, Condition(torch.randn(2, 16))).abs().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_one_seed_gives_the_same_weights_with_and_without_conditioning(small):
    choices = [{}, {"condition_dim": 16}, {"condition_dim": 16, "cross_attention_resolutions": (256, 128)}]
    networks = []
    for choice in choices:
        torch.manual_seed(7)
        networks.append((small(**choice).state_dict(), torch.rand(3)))
    (baseline, after), *conditioned = networks
    for weights, after_conditioned in conditioned:
        assert baseline.keys() < weights.keys()
        assert all(torch.equal(weights[name], value) for name, value in baseline.items())
        assert torch.equal(after_conditioned, after)


def test_weights_of_attention_follow_the_seed_and_differ_between_places(small):
    def queries(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        network = small(ch_mult=(1, 1), num_res_blocks=2, condition_dim=16, cross_attention_resolutions=(256, 128))
        return [value for name, value in network.state_dict().items() if name.endswith("query.weight")]

    first, again, other = queries(1), queries(1), queries(2)
    assert len(first) == 6
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not any(torch.equal(first[i], first[j]) for i in range(6) for j in range(i))


def test_an_nf_that_group_norm_cannot_divide_is_refused_with_its_neighbours():
    check_nf(128, (1, 2))
    with pytest.raises(ValueError, match="use 40 or 44"):
        check_nf(42, (1, 1))
    check_nf(24, (1, 2, 3), joins_skips=False)
    with pytest.raises(ValueError, match="nf=24"):
        check_nf(24, (1, 2, 3))
    with pytest.raises(ValueError, match="nf=50"):
        NCSNpp(VARIANTS["ncsnpp"], nf=50)


def test_the_paper_size_is_65_million_parameters():
    with torch.device("meta"):
        network = NCSNpp(VARIANTS["ncsnpp"])
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(65.6, abs=0.1)
