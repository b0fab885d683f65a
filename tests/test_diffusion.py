"""Processes, samplers and the transform against the published code and against closed forms."""

import pytest
import torch
from golden_numbers import as_complex, golden, relative_error

from sgmse.diffusion import samplers as sampling
from sgmse.diffusion.sde import OUVE, SBVE, per_item
from sgmse.diffusion.transform import SpectrogramTransform, pad_frames


def replay(draws):
    """A noise source that returns recorded draws in order."""
    iterator = iter(draws)
    return lambda like: next(iterator)


def no_noise(like):
    raise AssertionError("a deterministic sampler drew noise")


def test_ouve_has_the_published_coefficients():
    d, sde = golden("sdes"), OUVE()
    x0, y, t = as_complex(d["x0"]), as_complex(d["y"]), d["t"]
    assert relative_error(sde.mean(x0, y, t), as_complex(d["ouve.mean"])) < 1e-6
    assert relative_error(sde.std(t), d["ouve.std"]) < 1e-6
    assert relative_error(sde.drift(x0, y), as_complex(d["ouve.drift"])) < 1e-6
    assert relative_error(sde.diffusion(t), d["ouve.diffusion"]) < 1e-6


def test_bridge_has_the_published_coefficients():
    d, sde = golden("sdes"), SBVE()
    x0, y, t = as_complex(d["x0"]), as_complex(d["y"]), d["t"]
    assert relative_error(sde.mean(x0, y, t), as_complex(d["sbve.mean"])) < 1e-6
    assert relative_error(sde.std(t), d["sbve.std"]) < 1e-5
    assert relative_error(sde.sigma(t), d["sbve.sigma_t"]) < 1e-6
    assert relative_error(sde.sigma_bar(t), d["sbve.sigma_bar"]) < 1e-5
    assert sde.sigma_end(t)[0].item() == pytest.approx(d["sbve.sigma_T"].item(), rel=1e-6)


@pytest.mark.parametrize("sde", [OUVE(), SBVE()])
def test_mean_and_std_solve_the_forward_process(sde):
    """dσ²/dt = −2θσ² + g² (OUVE); the bridge's variance is σ_t² σ̄_t² / σ_T²."""
    t = torch.linspace(0.1, 0.9, 50, dtype=torch.float64)
    if isinstance(sde, OUVE):
        h = 1e-5
        slope = (sde.std(t + h) ** 2 - sde.std(t - h) ** 2) / (2 * h)
        assert torch.allclose(slope, -2 * sde.theta * sde.std(t) ** 2 + sde.diffusion(t) ** 2, rtol=1e-5)
    else:
        h = 1e-5
        slope = (sde.sigma(t + h) ** 2 - sde.sigma(t - h) ** 2) / (2 * h)
        assert torch.allclose(slope, sde.diffusion(t) ** 2, rtol=1e-5)
        ends = sde.std(torch.tensor([1e-9, 1.0]))
        assert ends.max() < 1e-3


def golden_score(x, y, t):
    return -(x - 0.6 * y) / per_item(0.3 + t, x) ** 2


@pytest.mark.parametrize("corrector", ["ald", "langevin", "none"])
def test_predictor_corrector_follows_the_published_path(corrector):
    d = golden("samplers")
    y, key = as_complex(d["y"]), f"pc.reverse_diffusion.{corrector}"
    noise = replay(as_complex(d[f"{key}.noise"]))
    result = sampling.predictor_corrector(
        lambda x, t: golden_score(x, y, torch.tensor(t)),
        OUVE(),
        y,
        noise,
        N=5,
        t_eps=0.03,
        snr=0.5,
        corrector=corrector,
    )
    assert relative_error(result.spectrogram, as_complex(d[f"{key}.output"])) < 1e-5
    assert result.nfe == (5 if corrector == "none" else 10)


@pytest.mark.parametrize("method", ["ode", "sde"])
def test_bridge_samplers_follow_the_published_path(method):
    d = golden("samplers")
    y = as_complex(d["y"])
    noise = replay(as_complex(d["sb.sde.noise"])) if method == "sde" else no_noise

    def denoise(x, t):
        return 0.5 * x + 0.3 * y * t

    result = sampling.bridge(denoise, SBVE(), y, noise, N=6, end_time=1e-4, method=method, published_bridge=True)
    # the first ODE step divides by a guard: in float64 the same formula is 1.5e-3 away from the float32 record
    assert relative_error(result.spectrogram, as_complex(d[f"sb.{method}.output"])) < 2e-3
    assert result.nfe == 6


CHOICES = [{"sampler": name} for name in sampling.SAMPLERS]
CHOICES += [{"corrector": "none"}, {"corrector_steps": 2}, {"predictor": "euler_maruyama"}]  # of pc, the default


@pytest.mark.parametrize("choice", CHOICES, ids=lambda choice: "_".join(map(str, choice.values())))
def test_nfe_is_the_number_of_forward_passes_that_a_hook_counts(choice):
    """Whatever sampler is chosen, it starts from its own process and draws from the noise source it is given."""
    network, calls = torch.nn.Identity(), []
    network.register_forward_hook(lambda *_: calls.append(1))
    settings = sampling.SamplerSettings(**choice, N=4)
    sde = OUVE() if settings.sampler == "auto" else sampling.SAMPLERS[settings.sampler].process()
    y = torch.randn(2, 1, 4, 4, dtype=torch.complex64)
    noise = sampling.gaussian(torch.Generator().manual_seed(1))
    result = sampling.sample(lambda x, t: -1e-3 * network(x), sde, y, noise, settings, 0.03)
    assert result.nfe == len(calls) > 0
    assert result.spectrogram.shape == y.shape


@pytest.mark.parametrize("method", ["ode", "sde"])
@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_bridge_with_a_perfect_denoiser_returns_the_clean_spectrogram(method, num_steps):
    x0, y = torch.randn(2, 2, 1, 4, 4, dtype=torch.complex64)
    seen = []

    def denoise(x, t):
        seen.append(t)
        return x0

    noise = sampling.gaussian(torch.Generator().manual_seed(1))
    result = sampling.bridge(denoise, SBVE(), y, noise, N=num_steps, method=method)
    assert relative_error(result.spectrogram, x0) < 1e-3
    assert seen[0] == 1.0
    assert min(seen) >= 1 / num_steps - 1e-3, "the network is asked where x_t is, never near t = 0"


def gaussian_score(x, y, t, mean, std0):
    """Exact score of x_t when x_0 ~ N(mean, std0²) under OUVE."""
    sde = OUVE()
    variance = per_item(torch.exp(-2 * sde.theta * t) * std0**2 + sde.std(t) ** 2, x)
    return -(x - sde.mean(mean, y, t)) / variance


def flow_error(method, num_steps):
    """Distance of the numerical flow from RK45 with a tight tolerance, same starting point."""
    generator = torch.Generator().manual_seed(3)
    y = torch.randn(1, 1, 8, 8, dtype=torch.complex128, generator=generator)
    mean, start = 0.5 * y, torch.randn(y.shape, dtype=y.dtype, generator=generator)

    def score(x, t):
        return gaussian_score(x, y, torch.tensor(t, dtype=torch.float64), mean, 0.3)

    exact = sampling.probability_flow_rk45(score, OUVE(), y, lambda _: start, tolerance=1e-9).spectrogram
    if method == "rk45":
        coarse = sampling.probability_flow_rk45(score, OUVE(), y, lambda _: start, tolerance=1e-5)
    else:
        coarse = sampling.probability_flow(score, OUVE(), y, lambda _: start, N=num_steps, method=method)
    return relative_error(coarse.spectrogram, exact)


def test_euler_is_first_order_and_heun_second():
    assert flow_error("euler", 41) / flow_error("euler", 81) == pytest.approx(2, rel=0.15)
    assert flow_error("heun", 41) / flow_error("heun", 81) == pytest.approx(4, rel=0.15)
    assert flow_error("rk45", 0) < 1e-4


def test_reverse_diffusion_reaches_the_distribution_it_was_given():
    """With the exact score of N(m, s²), many samples have mean m and standard deviation s."""
    y = torch.zeros(1, 1, 100, 100, dtype=torch.complex64)
    mean = torch.full_like(y, 0.7)
    noise = sampling.gaussian(torch.Generator().manual_seed(0))
    result = sampling.predictor_corrector(
        lambda x, t: gaussian_score(x, y, torch.tensor(t), mean, 0.2),
        OUVE(),
        y,
        noise,
        N=200,
        corrector="none",
        t_eps=0.01,
    )
    assert result.spectrogram.mean().real.item() == pytest.approx(0.7, abs=0.02)
    assert result.spectrogram.std().item() == pytest.approx(0.2, abs=0.02)


def test_transform_is_the_published_one_and_inverts():
    d = golden("stft")
    transform = SpectrogramTransform(510, 128, 0.15, 0.5)
    assert relative_error(transform.stft(d["waveform"]), as_complex(d["stft"])) < 1e-5
    spectrogram = transform(d["waveform"])
    assert relative_error(spectrogram.squeeze(1), as_complex(d["transformed"])) < 1e-5
    assert relative_error(transform.inverse(spectrogram, 16384), d["reconstructed"]) < 1e-5
    fullband = SpectrogramTransform(1534, 384, 0.065, 0.667)
    assert relative_error(fullband(d["waveform"]).squeeze(1), as_complex(d["48k.transformed"])) < 1e-5


def test_compression_of_silence_is_silence_with_a_finite_gradient():
    transform = SpectrogramTransform(510, 128, 0.15, 0.5)
    spectrogram = torch.zeros(1, 1, 256, 9, dtype=torch.complex64, requires_grad=True)
    transform.inverse(spectrogram, 1024).abs().sum().backward()
    assert torch.isfinite(torch.view_as_real(spectrogram.grad)).all()
    assert transform(torch.zeros(1, 1024)).abs().max() == 0


def test_padding_reflects_only_where_there_is_enough_to_reflect():
    x = torch.arange(5.0).reshape(1, 1, 1, 5)
    assert pad_frames(x, 4, "reflect")[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert pad_frames(x, 16, "reflect")[0, 0, 0].tolist() == [0, 1, 2, 3, 4] + [0] * 11
    assert pad_frames(x, 5, "zero") is x
