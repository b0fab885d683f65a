"""NCSN++ against the published networks, and its own rules."""

import pytest
import torch
from golden_numbers import as_complex, golden, relative_error

from sgmse.diffusion.conditioning import Condition
from sgmse.networks.layers import check_nf
from sgmse.networks.ncsnpp import VARIANTS, NCSNpp
from sgmse.networks.published import rename


def small(**kwargs) -> NCSNpp:
    return NCSNpp(VARIANTS["ncsnpp_v2"], **{"nf": 8, "ch_mult": (1, 2), "num_res_blocks": 1, **kwargs})


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


def test_any_number_of_frames_goes_through_and_keeps_its_length():
    network = small(ch_mult=(1, 1, 2))
    for frames in (1, 5, 8, 13):
        x, y, t = inputs(frames)
        assert network(x, y, t).shape == x.shape


def test_condition_adds_exactly_nothing_at_initialisation_and_when_null():
    network = small(condition_dim=16)
    torch.nn.init.normal_(network.up[0].blocks[0].conv_out.weight)  # a fresh network is zero everywhere
    x, y, t = inputs(8)
    condition = Condition(torch.randn(2, 16))
    assert torch.equal(network(x, y, t, condition), network(x, y, t))
    for module in network.modules():
        if getattr(module, "condition_proj", None) is not None:
            torch.nn.init.normal_(module.condition_proj.weight)
        if hasattr(module, "conv_out"):
            torch.nn.init.normal_(module.conv_out.weight, std=0.1)
        if type(module).__name__ == "ToPyramid":
            torch.nn.init.normal_(module[2].weight)
    assert not torch.allclose(network(x, y, t, condition), network(x, y, t))
    assert torch.equal(network(x, y, t, Condition(torch.zeros(2, 16))), network(x, y, t))


def test_folded_network_has_the_shape_of_its_input():
    x, y, t = inputs(8)
    network = small(frequency_fold=4)
    assert network(x, y, t).shape == x.shape
    folded = network._folded(x.real)
    assert folded.shape == (2, 4, 8, 8)
    assert torch.equal(network._unfolded(folded), x.real)


def test_every_parameter_receives_a_gradient():
    network = small(condition_dim=16, ch_mult=(1, 2, 2), frequency_fold=2)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    x, y, t = inputs(8)
    network(x, y, t, Condition(torch.randn(2, 16))).abs().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_one_seed_gives_the_same_weights_with_and_without_conditioning():
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


def test_weights_of_attention_follow_the_seed_and_differ_between_places():
    def queries(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        network = small(ch_mult=(1, 1), num_res_blocks=2, condition_dim=16, cross_attention_resolutions=(256, 128))
        return [value for name, value in network.state_dict().items() if name.endswith("query.weight")]

    first, again, other = queries(1), queries(1), queries(2)
    assert len(first) == 2 * 2 + 2
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True))
    assert not any(torch.equal(first[i], first[j]) for i in range(6) for j in range(i))


def test_an_nf_that_group_norm_cannot_divide_is_refused_with_its_neighbours():
    check_nf(128, (1, 2))
    with pytest.raises(ValueError, match="use 40 or 44"):
        check_nf(42, (1, 1))
    with pytest.raises(ValueError, match="nf=50"):
        NCSNpp(VARIANTS["ncsnpp"], nf=50)


def test_the_paper_size_is_65_million_parameters():
    with torch.device("meta"):
        network = NCSNpp(VARIANTS["ncsnpp"])
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(65.6, abs=0.1)
