"""GroupNorm and SiLU as one step: the same numbers as PyTorch's two, forward and backward."""

import pytest
import torch
import torch.nn.functional as F

from sgmse.networks.norm import NormSiLU, group_statistics


def feature_map(dtype=torch.float64, size=(3, 8, 5, 6)) -> torch.Tensor:
    x = torch.randn(size, dtype=dtype) * 3 + 2
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def layer(dtype=torch.float64) -> NormSiLU:
    made = NormSiLU(4, 8, eps=1e-6).to(dtype)
    torch.nn.init.normal_(made.weight)
    torch.nn.init.normal_(made.bias)
    return made


def plain(norm, x, scale, shift):
    normed = F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
    return F.silu(normed if scale is None else (1 + scale[..., None, None]) * normed + shift[..., None, None])


@pytest.mark.parametrize("modulated", [False, True])
def test_outputs_and_gradients_are_those_of_the_two_steps(modulated):
    norm, x = layer(torch.float32), feature_map(torch.float32)
    scale, shift = (torch.randn(3, 8, requires_grad=True) for _ in range(2)) if modulated else (None, None)
    leaves = [leaf for leaf in (x, norm.weight, norm.bias, scale, shift) if leaf is not None]
    weights = torch.randn(x.shape)
    results = []
    for function in (lambda: norm(x, scale, shift), lambda: plain(norm, x, scale, shift)):
        output = function()
        results.append([output, *torch.autograd.grad((output * weights).sum(), leaves)])
    for ours, theirs in zip(*results, strict=True):
        assert (ours - theirs).abs().max() < 2e-6 * theirs.abs().max().clamp_min(1)


@pytest.mark.parametrize("modulated", [False, True])
def test_gradients_are_those_of_finite_differences(modulated):
    norm = layer()
    inputs = [feature_map(size=(2, 8, 2, 3))]
    inputs += [torch.randn(2, 8, dtype=torch.float64, requires_grad=True) for _ in range(2 if modulated else 0)]
    assert torch.autograd.gradcheck(norm, inputs)


def test_results_keep_the_memory_format_of_the_convolutions():
    norm, x = layer(torch.float32), feature_map(torch.float32)
    output = norm(x)
    (gradient,) = torch.autograd.grad(output.sum(), x)
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert gradient.is_contiguous(memory_format=torch.channels_last)


def test_statistics_without_the_kernel_of_the_processor_are_those_of_group_norm():
    x = feature_map(torch.float32)
    mean, inverse_std = group_statistics(x, 4, 1e-6)
    grouped = x.unflatten(1, (4, 2)).flatten(2)
    assert torch.allclose(mean[..., 0], grouped.mean(-1), atol=1e-5)
    assert torch.allclose(inverse_std[..., 0], (grouped.var(-1, correction=0) + 1e-6).rsqrt(), rtol=1e-5)


def test_bf16_stays_bf16_with_statistics_in_32_bit():
    norm, x = layer(torch.float32), feature_map(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        half = x.bfloat16()
        output = norm(half)
    assert output.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(output.float().sum(), half)
    (exact,) = torch.autograd.grad(norm(x).sum(), x)
    assert (output.float() - norm(x)).abs().max() < 0.02 * norm(x).abs().max()
    assert (gradient.float() - exact).abs().max() < 0.03 * exact.abs().max()


@pytest.mark.parametrize("modulated", [False, True])
def test_the_compiler_sees_plain_operations_with_the_same_result(modulated, monkeypatch):
    norm, x = layer(torch.float32), feature_map(torch.float32)
    factors = torch.randn(2, 3, 8) if modulated else (None, None)
    expected = norm(x, *factors)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    output = norm(x, *factors)
    assert "NormSiLU" not in str(output.grad_fn)
    assert torch.allclose(output, expected, atol=1e-5)
