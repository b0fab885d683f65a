"""Few-step samplers against closed forms: exponential integrators of OUVE, the second-order bridge, step schedules."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from golden_numbers import relative_error

from sgmse.common.errors import UserError
from sgmse.diffusion import samplers as sampling
from sgmse.diffusion.samplers import _second_order, step_times
from sgmse.diffusion.sde import OUVE, SBVE, per_item
from sgmse.settings.checks import check_sampler

SDE, STD0, T_EPS = OUVE(), 0.3, 0.03
GENERATOR = torch.Generator().manual_seed(3)
Y, START = torch.randn(2, 1, 1, 8, 8, dtype=torch.complex128, generator=GENERATOR)
MEAN = 0.5 * Y  # clean speech is N(MEAN, STD0²) here


def variance(t):
    return torch.exp(-2 * SDE.theta * t) * STD0**2 + SDE.std(t) ** 2


def score(x, t):
    """Exact score of x_t when x_0 ~ N(MEAN, STD0²)."""
    t = torch.as_tensor(t, dtype=torch.float64)
    return -(x - SDE.mean(MEAN, Y, t)) / per_item(variance(t), x)


def exact():
    """E[x_0] at the end of the exact flow, which keeps (x − mean) / √variance, from the prior at 1 to T_EPS."""
    one, end = torch.ones(1, dtype=torch.float64), torch.full((1,), T_EPS, dtype=torch.float64)
    x = SDE.prior(Y, START)
    x = SDE.mean(MEAN, Y, end) + (variance(end) / variance(one)).sqrt() * (x - SDE.mean(MEAN, Y, one))
    gain = torch.exp(-SDE.theta * end) * STD0**2 / variance(end)
    return MEAN + gain * (x - SDE.mean(MEAN, Y, end))


def error(order, num_steps, schedule="uniform"):
    found = sampling.dpm_solver(score, SDE, Y, lambda _: START, num_steps, T_EPS, order, schedule)
    return relative_error(found.spectrogram, exact())


def test_clean_from_score_is_the_posterior_mean_and_undoes_the_mean():
    t = torch.tensor([0.4], dtype=torch.float64)
    x = SDE.mean(MEAN, Y, t) + 0.2 * START
    gain = torch.exp(-SDE.theta * t) * STD0**2 / variance(t)
    assert relative_error(SDE.clean_from_score(x, Y, score(x, t), t), MEAN + gain * (x - SDE.mean(MEAN, Y, t))) < 1e-12
    towards = (SDE.mean(MEAN, Y, t) - x) / SDE.std(t) ** 2
    assert relative_error(SDE.clean_from_score(x, Y, towards, t), MEAN) < 1e-12


@pytest.mark.parametrize("schedule", ["uniform", "quadratic"])
def test_exponential_integrators_converge_to_the_exact_flow_at_their_order(schedule):
    assert error(1, 41, schedule) / error(1, 81, schedule) == pytest.approx(2, rel=0.15)
    assert error(2, 81, schedule) / error(2, 161, schedule) == pytest.approx(4, rel=0.25)
    assert error(2, 161, schedule) < 1e-3


def test_five_evaluations_of_second_order_come_nearer_than_five_of_euler_or_heun():
    for method, num_steps in (("euler", 5), ("heun", 3)):
        other = sampling.probability_flow(score, SDE, Y, lambda _: START, num_steps, T_EPS, method)
        assert other.nfe == 5
        assert error(2, 5, "quadratic") < 0.2 * relative_error(other.spectrogram, exact())
    assert error(2, 5, "quadratic") < error(2, 5) < error(1, 5)


def test_exponential_integrator_agrees_with_rk45():
    """They differ in how they remove what noise is left at t_eps, which vanishes with it."""
    flow = sampling.probability_flow_rk45(score, SDE, Y, lambda _: START, 1e-3, tolerance=1e-8)
    found = sampling.dpm_solver(score, SDE, Y, lambda _: START, 100, 1e-3, 2, "quadratic")
    assert relative_error(found.spectrogram, flow.spectrogram) < 1e-3


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_a_score_that_knows_the_clean_spectrogram_leads_to_it(order, num_steps):
    x0 = 0.7 * START

    def knowing(x, t):
        t = torch.tensor(t, dtype=torch.float64)
        return (SDE.mean(x0, Y, t) - x) / SDE.std(t) ** 2

    found = sampling.dpm_solver(knowing, SDE, Y, lambda _: START, num_steps, T_EPS, order)
    assert relative_error(found.spectrogram, x0) < 1e-4
    assert found.nfe == num_steps


def test_quadratic_steps_have_the_same_ends_and_shorten():
    uniform, quadratic = (np.array(step_times(1, T_EPS, 7, name)) for name in ("uniform", "quadratic"))
    assert np.array_equal(uniform, np.linspace(1, T_EPS, 7))
    assert quadratic[[0, -1]] == pytest.approx([1, T_EPS])
    assert (np.diff(quadratic, 2) > 0).all()
    assert step_times(1, T_EPS, 1, "quadratic") == [1]


def test_second_order_weight_is_the_integral_over_the_step():
    """Trapezoids over κ = σ̄/σ of (τ − τ_p) dκ, with 200 000 points."""
    sde, (before, prev, now) = SBVE(), torch.tensor([0.9, 0.6, 0.25], dtype=torch.float64)

    def tau(t):
        return sde.sigma(t) ** 2 / sde.sigma_end(t) ** 2

    grid = torch.linspace(tau(prev), tau(now), 200_001, dtype=torch.float64)
    kappa = ((1 - grid) / grid).sqrt()
    integral = torch.trapezoid(grid - tau(prev), kappa)
    expected = (tau(now) * (1 - tau(now))).sqrt() * integral / (tau(prev) - tau(before))
    found = _second_order(sde, before[None], prev[None], now[None])
    assert found.item() == pytest.approx(expected.item(), rel=1e-6)


def two_talkers(x, t):
    """Exact posterior mean under the bridge when x_0 is 0.2 Y or 0.9 Y, each with a spread."""
    sde, t = SBVE(), torch.tensor(t, dtype=torch.float64)
    share, var = 1 - sde.sigma(t) ** 2 / sde.sigma_end(t) ** 2, sde.std(t) ** 2
    weights, means = [], []
    for centre, spread in ((0.2, 0.3), (0.9, 0.5)):
        total = var + share**2 * spread**2
        off = x - (share * centre * Y + (1 - share) * Y)
        weights.append(-torch.log(total) - off.abs() ** 2 / total)
        means.append(centre * Y + share * spread**2 / total * off)
    return (torch.softmax(torch.stack(weights), 0) * torch.stack(means)).sum(0)


def test_second_order_bridge_halves_the_error_of_few_steps():
    fine = sampling.bridge(two_talkers, SBVE(), Y, lambda _: START, 600, order=2).spectrogram
    coarse = {order: sampling.bridge(two_talkers, SBVE(), Y, lambda _: START, 5, order=order) for order in (1, 2)}
    first, second = (relative_error(coarse[order].spectrogram, fine) for order in (1, 2))
    assert second < 0.6 * first
    assert coarse[2].nfe == coarse[1].nfe == 5


@pytest.mark.parametrize(("name", "nfe"), [("dpm1", 4), ("dpm2", 4), ("pc", 8), ("euler", 4), ("heun", 7)])
def test_settings_name_every_sampler_of_ouve(name, nfe):
    settings = sampling.SamplerSettings(sampler=name, N=4)
    assert sampling.sample(score, SDE, Y, lambda _: START, settings, T_EPS).nfe == nfe


def test_the_second_order_bridge_ignores_that_a_published_checkpoint_takes_published_steps():
    settings = sampling.SamplerSettings(sampler="bridge_ode2", N=3)
    published = dataclasses.replace(settings, published_bridge=True)
    found = [sampling.sample(two_talkers, SBVE(), Y, lambda _: START, s, T_EPS) for s in (settings, published)]
    assert torch.equal(found[0].spectrogram, found[1].spectrogram)


def test_the_schedule_reaches_the_bridge_and_the_exponential_integrators():
    for sde, name, predict in ((SBVE(), "bridge_ode", two_talkers), (SDE, "dpm2", score)):
        plain = sampling.SamplerSettings(sampler=name, N=4)
        chosen = dataclasses.replace(plain, schedule="quadratic")
        found = [sampling.sample(predict, sde, Y, lambda _: START, s, T_EPS).spectrogram for s in (plain, chosen)]
        assert relative_error(found[1], found[0]) > 1e-3


def test_one_line_makes_a_sampler_selectable_with_the_settings_it_reads(monkeypatch):
    asked = {}

    def once(denoise, sde, y, noise, **settings):
        asked.update(settings)
        return sampling.Sample(denoise(y, 1.0), 1)

    monkeypatch.setitem(sampling.SAMPLERS, "once", sampling.Sampler(once, SBVE, frozenset({"snr"})))
    settings = sampling.SamplerSettings(sampler="once", snr=0.3)
    assert sampling.sample(two_talkers, SBVE(), Y, lambda _: START, settings, T_EPS).nfe == 1
    assert asked == {"snr": 0.3}


def test_a_sampler_of_the_other_process_is_refused_with_those_that_fit():
    with pytest.raises(UserError, match="use bridge_ode, bridge_ode2 or bridge_sde"):
        sampling.sampler_name(sampling.SamplerSettings(sampler="dpm2"), SBVE())
    with pytest.raises(UserError, match="use pc, euler, heun, rk45, dpm1 or dpm2"):
        sampling.sampler_name(sampling.SamplerSettings(sampler="bridge_ode2"), SDE)
    with pytest.raises(UserError, match="--sampler rk4"):
        sampling.sampler_name(sampling.SamplerSettings(sampler="rk4"), SDE)


@pytest.mark.parametrize("wrong", [{"N": 0}, {"N": -3}, {"corrector_steps": 0}, {"snr": 0.0}, {"snr": math.nan}])
def test_settings_that_no_sampler_can_work_with_are_refused(wrong):
    with pytest.raises(UserError, match=r"use (1 or more|more than 0)"):
        check_sampler(dataclasses.replace(sampling.SamplerSettings(), **wrong), "score_matching")
