"""Guidance against closed forms: classifier-free, interval, automatic, projected, rescaled, and what each costs."""

import pytest
import torch

from sgmse.diffusion.conditioning import Condition, ZeroNull
from sgmse.diffusion.guidance import (
    APG_LONGEST,
    APG_MOMENTUM,
    EncodedReference,
    GuidanceSettings,
    Guide,
    remove_parallel,
    rescale,
)
from sgmse.diffusion.samplers import gaussian, probability_flow
from sgmse.diffusion.sde import OUVE, SBVE, per_item

SHAPE = (3, 1, 4, 4)
TIME = 0.5


class Network(torch.nn.Module):
    """A conditional function whose batches are counted."""

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, x_t, y, t, condition):
        self.batches.append(len(x_t))
        bias = 0 if condition is None else per_item(condition.vector.sum(dim=1) * t, x_t)
        return x_t * 2 + y * (1 + bias)


def condition() -> Condition:
    return Condition(torch.randn(3, 4), torch.randn(3, 5, 4), torch.ones(3, 5, dtype=torch.bool))


def encoded(condition, negative=None, worse_network=None) -> EncodedReference:
    return EncodedReference(torch.ones(3), torch.zeros(3, dtype=torch.bool), condition, negative, worse_network)


class Setting:
    """A network with a condition, its null, x_t and y."""

    def __init__(self, sde=None):
        self.network, self.sde, self.condition = Network(), sde or SBVE(), condition()
        self.null = ZeroNull()(self.condition)
        self.x_t, self.y = torch.randn(2, *SHAPE, dtype=torch.complex64)

    def guide(self, scale, negative=None, worse_network=None, **settings):
        reference = encoded(self.condition, self.null if negative is None else negative, worse_network)
        return Guide(self.network, self.y, reference, scale, GuidanceSettings(**settings), self.sde)

    def guided(self, scale, negative=None, worse_network=None, t=TIME, **settings):
        return self.guide(scale, negative, worse_network, **settings)(self.x_t, t)

    def alone(self, condition, t=TIME):
        return self.network(self.x_t, self.y, torch.full((len(self.y),), t), condition)


@pytest.mark.parametrize(("scale", "which"), [(1, "condition"), (0, "null")])
def test_scale_one_is_the_conditional_prediction_and_zero_the_null_one_in_one_pass(scale, which):
    s = Setting()
    guide = s.guide(scale)
    assert torch.equal(guide(s.x_t, TIME), s.alone(getattr(s, which)))
    assert (s.network.batches[0], guide.passes) == (3, 1)


@pytest.mark.parametrize("scale", [-1, 0.5, 3])
def test_other_scales_are_one_double_batch_equal_to_two_calls(scale):
    s = Setting()
    guide = s.guide(scale)
    output = guide(s.x_t, TIME)
    assert s.network.batches == [6]
    assert guide.passes == 2
    c, u = s.alone(s.condition), s.alone(s.null)
    torch.testing.assert_close(output, u + scale * (c - u), rtol=1e-5, atol=1e-5)


def test_each_item_of_a_batch_may_have_a_scale_of_its_own():
    s = Setting()
    output = s.guided(torch.tensor([0.0, 1.0, 3.0]))
    c, u = s.alone(s.condition), s.alone(s.null)
    torch.testing.assert_close(output, torch.stack([u[0], c[1], u[2] + 3 * (c[2] - u[2])]))


def test_without_a_condition_the_scale_does_nothing():
    s = Setting()
    guide = Guide(s.network, s.y, encoded(None), 3.0, GuidanceSettings(), s.sde)
    assert torch.equal(guide(s.x_t, TIME), s.alone(None))
    assert guide.passes == 1


# ---- interval ----


def test_outside_its_interval_guidance_is_the_conditional_prediction_in_one_pass():
    s = Setting()
    guide = s.guide(3.0, guidance_interval=[0.3, 0.6])
    outputs = {t: guide(s.x_t, t) for t in (0.2, 0.3, 0.6, 0.7)}
    assert s.network.batches == [3, 6, 6, 3]  # both ends belong to it
    assert guide.passes == 6
    assert torch.equal(outputs[0.2], s.alone(s.condition, 0.2))
    c, u = (s.alone(condition, 0.6) for condition in (s.condition, s.null))
    torch.testing.assert_close(outputs[0.6], u + 3 * (c - u))


def test_outside_its_interval_a_scale_below_one_keeps_what_it_takes_from_the_reference():
    s = Setting()
    guide = s.guide(torch.tensor([0.0, 0.5, 3.0]), guidance_interval=[0.3, 0.6])
    output = guide(s.x_t, 0.8)
    c, u = (s.alone(condition, 0.8) for condition in (s.condition, s.null))
    torch.testing.assert_close(output, torch.stack([u[0], 0.5 * (c[1] + u[1]), c[2]]))
    assert s.network.batches[0] == 6
    assert torch.equal(s.guide(0.0, guidance_interval=[0.3, 0.6])(s.x_t, 0.8), u)


# ---- closed forms on Gaussians ----

SPREAD = 0.3


def gaussian_score(sde, x_t, y, t, mean, spread=SPREAD):
    """The score of x_t when x_0 is complex normal with this mean and standard deviation."""
    decay = per_item(torch.exp(-sde.theta * t), x_t)
    variance = decay**2 * spread**2 + per_item(sde.std(t), x_t) ** 2
    return -(x_t - sde.mean(mean * torch.ones_like(y), y, t)) / variance


def sampled(score, y):
    return probability_flow(score, OUVE(), y, gaussian(torch.Generator().manual_seed(0)), 8).spectrogram


@pytest.mark.parametrize("interval", [[], [0.2, 0.6]])
def test_sampling_with_guidance_follows_the_gaussian_whose_mean_it_extrapolates(interval):
    """x_0 ~ N(m, s²) with the reference, N(0, s²) without: w moves the mean to w m, at the times where it acts."""
    sde, y, m, w = OUVE(), torch.randn(2, 1, 3, 3, dtype=torch.complex64), 0.7, 3.0

    def network(x_t, y, t, condition):
        return gaussian_score(sde, x_t, y, t, per_item(condition.vector[:, 0], x_t))

    def direct(x_t, t):
        inside = not interval or interval[0] <= t <= interval[1]
        return gaussian_score(sde, x_t, y, torch.tensor(t), w * m if inside else m)

    c = Condition(torch.full((2, 1), m))
    settings = GuidanceSettings(guidance_interval=interval)
    guide = Guide(network, y, encoded(c, ZeroNull()(c)), w, settings, sde)
    torch.testing.assert_close(sampled(guide, y), sampled(direct, y), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(sampled(guide, y), sampled(lambda x, t: network(x, y, torch.tensor(t), c), y), rtol=1e-2)


def test_autoguidance_is_the_score_of_a_power_of_one_density_over_the_other():
    """Strong N(m, s²), weak N(m, r²): precision w / s² + (1 − w) / r², the mean stays; a weak model only sharpens."""
    y, m, s, r, w = torch.zeros(3, 1, 2, 2, dtype=torch.complex64), 0.4, 0.5, 0.8, 2.0
    x_t = torch.randn_like(y)
    reference = encoded(condition(), None, lambda x, y, t, condition: -(x - m) / r**2)
    settings = GuidanceSettings(guidance="auto")
    guide = Guide(lambda x, y, t, condition: -(x - m) / s**2, y, reference, w, settings, SBVE())
    torch.testing.assert_close(guide(x_t, TIME), -(x_t - m) * (w / s**2 + (1 - w) / r**2))
    assert guide.passes == 2


@pytest.mark.parametrize("settings", [{}, {"guidance_apg": True}, {"guidance_rescale": 0.7}])
@pytest.mark.parametrize("sde", [OUVE(), SBVE()])
def test_autoguidance_with_the_model_itself_on_the_null_is_classifier_free_guidance(sde, settings):
    s = Setting(sde)
    itself = s.guided(2.5, s.null, s.network.forward, **settings)
    torch.testing.assert_close(itself, s.guided(2.5, **settings))


def test_an_unrelated_condition_takes_the_place_of_the_null():
    s, other = Setting(), condition()
    c, u = s.alone(s.condition), s.alone(other)
    torch.testing.assert_close(s.guided(2.0, other), 2 * c - u, rtol=1e-5, atol=1e-5)


# ---- projection and rescaling, on the clean spectrogram ----


def clean_of(s, prediction):
    return prediction if isinstance(s.sde, SBVE) else s.sde.clean_from_score(s.x_t, s.y, prediction, torch.tensor(TIME))


def dot(a, b):
    """The real inner product of each item."""
    return (a * b.conj()).real.flatten(1).sum(dim=1)


def test_the_score_of_a_clean_spectrogram_points_back_to_it():
    s, sde = Setting(), OUVE()
    clean = torch.randn_like(s.y)
    score = sde.score_from_clean(s.x_t, s.y, clean, torch.tensor(TIME))
    torch.testing.assert_close(sde.clean_from_score(s.x_t, s.y, score, torch.tensor(TIME)), clean, rtol=1e-4, atol=1e-4)


def test_the_projection_is_orthogonal_to_its_direction_and_leaves_orthogonal_things_alone():
    x, direction = torch.randn(2, *SHAPE, dtype=torch.complex128)
    rest = remove_parallel(x, direction)
    assert dot(rest, direction).abs().max() < 1e-12
    torch.testing.assert_close(remove_parallel(rest, direction), rest)
    torch.testing.assert_close(remove_parallel(x + per_item(torch.randn(3), x) * direction, direction), rest)
    assert torch.isfinite(torch.view_as_real(remove_parallel(x, torch.zeros_like(x)))).all()


@pytest.mark.parametrize("sde", [OUVE(), SBVE()])
def test_apg_moves_the_clean_spectrogram_across_the_conditional_one_and_not_far(sde):
    s = Setting(sde)
    clean = clean_of(s, s.alone(s.condition))
    moved = clean_of(s, s.guided(5.0, guidance_apg=True)) - clean
    norms = [x.abs().square().flatten(1).sum(dim=1).sqrt() for x in (moved, clean)]
    assert (dot(moved, clean).abs() < 1e-3 * norms[0] * norms[1]).all()
    assert (norms[0] <= (5 - 1) * APG_LONGEST * norms[1] * 1.001).all()
    assert (norms[0] > 0).all()


def test_apg_equals_plain_guidance_where_the_difference_is_short_and_orthogonal():
    s = Setting()
    across = 0.05 * remove_parallel(torch.randn_like(s.y), s.y)

    def network(x_t, y, t, condition):
        return y - per_item((condition.vector == 0).all(dim=1).float(), y) * across.repeat(len(y) // 3, 1, 1, 1)

    s.network = network
    torch.testing.assert_close(s.guided(3.0, guidance_apg=True), s.guided(3.0))


def test_apg_holds_the_last_difference_against_the_next():
    s = Setting()
    across = 0.01 * remove_parallel(torch.randn_like(s.y), s.y)
    s.network = lambda x_t, y, t, c: y - per_item((c.vector == 0).all(dim=1).float(), y) * torch.cat([across, across])
    guide = s.guide(3.0, guidance_apg=True)
    first, second = (guide(s.x_t, TIME) - s.y for _ in range(2))
    torch.testing.assert_close(second, (1 + APG_MOMENTUM) * first)


@pytest.mark.parametrize("sde", [OUVE(), SBVE()])
def test_rescaling_by_one_gives_the_clean_spectrogram_the_conditional_spread(sde):
    s = Setting(sde)
    plain, half, whole = (clean_of(s, s.guided(4.0, guidance_rescale=phi)) for phi in (0.0, 0.5, 1.0))
    spread = clean_of(s, s.alone(s.condition)).flatten(1).std(dim=1)
    torch.testing.assert_close(whole.flatten(1).std(dim=1), spread, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(half, (plain + whole) / 2, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(plain.flatten(1).std(dim=1), spread, rtol=1e-2)


def test_rescaling_nothing_stays_finite():
    zeros = torch.zeros(SHAPE, dtype=torch.complex64)
    assert torch.equal(rescale(zeros, zeros, 1.0), zeros)


@pytest.mark.parametrize("settings", [{"guidance_apg": True}, {"guidance_rescale": 1.0}])
def test_projection_and_rescaling_act_beyond_the_conditional_prediction_only(settings):
    """So an adaptive scale that falls to 0 ends at the null prediction, whatever else is asked for."""
    s = Setting()
    scale = torch.tensor([0.0, 0.5, 3.0])
    shaped, plain = s.guided(scale, **settings), s.guided(scale)
    torch.testing.assert_close(shaped[:2], plain[:2])
    assert not torch.allclose(shaped[2], plain[2])
