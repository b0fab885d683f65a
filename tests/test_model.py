"""The model: conditioning in training, guidance in enhancement, objectives."""

import pytest
import torch
from tiny import batch, enhanced, tiny

from sgmse.common.errors import UserError
from sgmse.diffusion import losses
from sgmse.diffusion.losses import Perturbed
from sgmse.diffusion.samplers import SamplerSettings, gaussian, sample
from sgmse.model.score_model import TIME_BINS
from sgmse.settings.config import TrainConfig

OUVE = {"sde": "ouve", "t_eps": 0.03}
LIGHT = {"backbone": "light", "frequency_fold": 4}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def with_open_condition(model):
    """Give the zero-initialised projections of the condition some weight."""
    for name, p in model.backbone.named_parameters():
        if "condition_proj" in name:
            torch.nn.init.normal_(p, std=0.5, generator=seeded(5))
    return model


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"l1_weight": 1.0},
        OUVE,
        {**OUVE, "backbone": "ncsnpp"},
        {**OUVE, "objective": "denoiser", "c_in": "edm", "c_out": "edm", "c_skip": "edm", "loss_weighting": "edm"},
        {**OUVE, "objective": "denoiser", "loss_weighting": "sigma^2"},
        {**OUVE, "network_scaling": "1/t"},
        {"encoder": "none"},
        {"null_condition": "learned"},
        {"objective": "predictive", "sampler": SamplerSettings(N=1)},
        {"reference_statistics": True},
        {"reference_prepend": True},
        {"output": "mask", "magnitude_weight": 1.0},
        LIGHT,
        {**LIGHT, "reference_statistics": True, "encoder": "sequence", "cross_attention_resolutions": [128]},
        {**LIGHT, "si_sdr_weight": 0.01, "times": "sampler", "end_share": 0.5},
        {**LIGHT, "objective": "predictive", "sampler": SamplerSettings(N=1)},
        {**LIGHT, **OUVE},
    ],
)
def test_every_objective_learns_one_batch(settings):
    model, data = tiny(**settings), batch()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

    def loss(generator):
        return model.loss(data, model.encode(data["reference"], data["reference_length"]), generator)[0].mean()

    before = loss(seeded()).item()
    for _ in range(15):
        optimizer.zero_grad()
        loss(seeded()).backward()
        optimizer.step()
    assert loss(seeded()).item() < 0.95 * before


def test_perfect_outputs_have_no_loss():
    """score = −z/σ, D = μ and x̂ = x are the minima of the three objectives."""
    data = batch()
    for settings in (OUVE, {**OUVE, "objective": "denoiser"}, {}):
        model = tiny(encoder="none", **settings)
        x, y = model.transform(data["clean"]), model.transform(data["noisy"])

        def perfect(x_t, y_, t, condition, model=model, x=x, y=y):
            if model.objective.name == "data_prediction":
                return x
            sigma = model.sde.std(t)[:, None, None, None]
            return -(x_t - model.sde.mean(x, y, t)) / sigma**2

        model.predict = perfect
        assert model.loss(data, None, seeded())[0].max() < 1e-6


def test_conditioned_model_starts_as_the_unconditioned_one():
    data = batch()
    conditioned, plain = tiny(), tiny(encoder="none")
    own = {name: p for name, p in conditioned.backbone.state_dict().items() if "condition_proj" not in name}
    plain.backbone.load_state_dict(own)
    for name, p in conditioned.backbone.named_parameters():
        if "condition_proj" in name:
            torch.nn.init.zeros_(p)
    condition = conditioned.encode(data["reference"], data["reference_length"])
    assert torch.equal(conditioned.loss(data, condition, seeded())[0], plain.loss(data, None, seeded())[0])


@pytest.mark.parametrize("null", ["zero", "learned"])
def test_a_reference_of_length_zero_is_the_null(null):
    model, data = tiny(null_condition=null), batch()
    condition = model.encode(data["reference"], torch.tensor([6000, 0]))
    assert torch.equal(condition.vector[1], model.null(condition).vector[1])
    assert not torch.equal(condition.vector[0], model.null(condition).vector[0])


def test_gradients_reach_the_first_layer_of_the_encoder():
    model, data = with_open_condition(tiny()), batch()
    model.loss(data, model.encode(data["reference"], data["reference_length"]), seeded())[0].mean().backward()
    assert model.encoder.convs[0].weight.grad.abs().sum() > 0


def enhance(model, scale=1.0, reference="given", **kwargs):
    data = batch()
    given = data["reference"] if isinstance(reference, str) else reference
    return enhanced(model, data["noisy"], given, gaussian(seeded(3)), scale, **kwargs)


def test_reference_is_encoded_once_whatever_the_number_of_steps():
    model, calls = tiny(), []
    model.encoder.register_forward_hook(lambda *_: calls.append(1))
    enhance(model, 3.0, sampler=SamplerSettings(N=5))
    assert calls == [1]


@pytest.mark.parametrize(("scale", "passes"), [(0, 2), (1, 2), (3, 4)])
def test_nfe_and_passes_are_what_the_network_saw(scale, passes):
    model, items = tiny(), []
    model.backbone.register_forward_hook(lambda _, inputs, __: items.append(len(inputs[0])))
    result = enhance(model, scale)
    assert result.nfe == len(items) == 2
    assert result.passes == sum(items) / len(batch()["noisy"]) == passes


def test_guidance_scale_zero_is_no_reference_and_one_uses_it():
    model = with_open_condition(tiny())
    null = enhance(model, 1.0, reference=None).waveform
    assert torch.equal(enhance(model, 0.0).waveform, null)
    assert not torch.allclose(enhance(model, 1.0).waveform, null)
    assert not torch.allclose(enhance(model, 3.0).waveform, enhance(model, 1.0).waveform)


def test_enhancement_follows_the_level_of_its_input():
    """Noisy speech and reference share one normalisation: scaling both scales the result."""
    model, data = with_open_condition(tiny()), batch()
    once = enhanced(model, data["noisy"], data["reference"], gaussian(seeded()))
    twice = enhanced(model, 2 * data["noisy"], 2 * data["reference"], gaussian(seeded()))
    torch.testing.assert_close(twice.waveform, 2 * once.waveform, rtol=1e-4, atol=1e-5)
    louder_reference = enhanced(model, data["noisy"], 4 * data["reference"], gaussian(seeded()))
    assert not torch.allclose(louder_reference.waveform, once.waveform, rtol=1e-3)


@pytest.mark.parametrize("settings", [{}, OUVE])
def test_digital_silence_stays_silent_and_a_silent_reference_is_reported(settings):
    model = tiny(**settings)
    result = enhanced(model, torch.zeros(1, 2048), torch.zeros(1, 2048), gaussian(seeded()))
    assert not result.waveform.any()
    assert result.null_reference.tolist() == [True]
    assert enhance(model).null_reference.tolist() == [False, False]


@pytest.mark.parametrize("sampler", ["pc", "euler", "heun", "rk45", "bridge_ode", "bridge_sde"])
def test_every_sampler_enhances_and_repeats_itself_under_one_seed(sampler):
    model = tiny(**({} if sampler.startswith("bridge") else OUVE))
    with torch.no_grad():
        model.backbone.output_layer.weight.mul_(0.01)  # RK45 takes countless steps along a random network's score
    settings = SamplerSettings(sampler=sampler, N=2)
    first, second = enhance(model, 2.0, sampler=settings), enhance(model, 2.0, sampler=settings)
    assert torch.isfinite(first.waveform).all()
    assert torch.equal(first.waveform, second.waveform)


def test_a_sampler_that_does_not_fit_the_process_is_refused():
    with pytest.raises(UserError, match="use bridge_ode, bridge_ode2 or bridge_sde"):
        tiny(sampler=SamplerSettings(sampler="pc"))
    with pytest.raises(UserError, match="use pc, euler, heun, rk45, dpm1 or dpm2"):
        tiny(sampler=SamplerSettings(sampler="bridge_ode"), **OUVE)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "score_matching"}, "does not fit --sde sbve"),
        ({"backbone": "ncsnpp"}, "use --backbone ncsnpp_v2"),
        ({"n_fft": 512}, "--n_fft"),
        ({"nf": 42}, "use 40 or 44"),
        ({"cond_drop_prob": 1.5}, "cond_drop_prob 1.5 is out of range"),
        ({**OUVE, "backbone": "ncsnpp", "c_skip": "edm"}, "fixed scaling"),
        ({"c_out": "edm", "c_skip": "edm"}, "vanishes at t = 1"),
        ({"c_out": "sigma"}, "vanishes at t = 1"),
        ({"c_out": "1/sigma"}, "explodes at t = 1"),
        ({"network_scaling": "1/sigma"}, "explodes at t = 1"),
        ({"backbone": "unet"}, "--backbone unet: one of ncsnpp, "),
        ({"encoder": "vae"}, "--encoder vae: one of none, cnn"),
        ({"objective": "flow"}, "--objective flow: one of auto, "),
        ({"sampler": SamplerSettings(sampler="rk4")}, "--sampler rk4"),
    ],
)
def test_impossible_combinations_fail_at_start_with_a_remedy(settings, message):
    with pytest.raises(UserError, match=message):
        tiny(**settings)


def test_scalings_whose_powers_of_sigma_cancel_work_for_a_bridge():
    assert torch.isfinite(enhance(tiny(c_out="sigma", network_scaling="1/sigma")).waveform).all()


def test_bf16_autocast_agrees_with_full_precision():
    model = tiny()
    full = enhance(model).waveform
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = enhance(model).waveform
    assert half.dtype == torch.float32
    assert (half - full).norm() / full.norm() < 0.1


def test_times_and_noise_are_a_function_of_seed_and_step_alone():
    model = tiny(TrainConfig(seed=1))
    draws = [torch.rand(3, generator=model._generator(*key)) for key in ((5, 0, 0), (5, 0, 0), (6, 0, 0), (5, 0, 1))]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[3])
    assert model._time_bins.shape[1] == TIME_BINS


def test_the_magnitude_loss_does_not_ask_for_the_phase():
    model, data = tiny(magnitude_weight=2.0, l1_weight=0.0), batch()
    clean = model.transform(data["clean"])
    turned = clean * torch.exp(torch.tensor(1j))
    plain = tiny(l1_weight=0.0).settings

    def loss(estimate, settings):
        return losses.data_prediction(estimate, Perturbed(clean, *[clean] * 5), settings)

    assert torch.allclose(loss(turned, model.settings), loss(turned, plain))
    louder = loss(1.5 * clean, model.settings) - loss(1.5 * clean, plain)
    assert torch.allclose(louder, 2.0 * loss(1.5 * clean, plain), rtol=1e-3)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"times": "sampler"}, {1.0: 0.25, 0.750025: 0.25, 0.50005: 0.25, 0.250075: 0.25}),
        ({"times": "sampler", "end_share": 0.5}, {1.0: 0.625, 0.750025: 0.125, 0.50005: 0.125, 0.250075: 0.125}),
    ],
)
def test_training_draws_the_times_at_which_the_sampler_asks(settings, expected):
    model = tiny(sampler=SamplerSettings(N=4), **settings)
    asked = []
    sample(
        lambda x, t: asked.append(t) or x,
        model.sde,
        torch.zeros(1, 1, 4, 4, dtype=torch.complex64),
        gaussian(seeded()),
        model.sampler,
        0.03,
    )
    times = model._draw_times(4000, seeded())
    assert asked == pytest.approx(list(expected), abs=1e-4)
    for time, share in expected.items():
        assert (times - time).abs().lt(1e-4).float().mean().item() == pytest.approx(share, abs=0.03)


def test_a_share_of_the_training_is_where_sampling_starts():
    uniform, times = tiny()._draw_times(4000, seeded()), tiny(end_share=0.4)._draw_times(4000, seeded())
    assert uniform.eq(1).sum() == 0
    assert times.eq(1).float().mean().item() == pytest.approx(0.4, abs=0.03)
    assert torch.equal(times[times < 1], uniform[times < 1])


@pytest.mark.parametrize("settings", [OUVE, {"c_skip": "edm"}, {"network_scaling": "1/t"}])
def test_a_mask_with_anything_but_an_estimate_of_speech_is_refused(settings):
    with pytest.raises(UserError, match="--output mask"):
        tiny(output="mask", **settings)


def test_a_training_starts_from_the_weights_of_another_model_as_far_as_they_fit(tmp_path):
    plain = tiny(encoder="none")
    content = {"model_settings": plain.settings, "state_dict": plain.state_dict(), "global_step": 1}
    torch.save(content, tmp_path / "plain.ckpt")
    model = tiny(TrainConfig())
    for p in model.backbone.parameters():
        torch.nn.init.normal_(p)
    sentence = model.start_from(tmp_path / "plain.ckpt")
    for name, weight in plain.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight)
    assert all(torch.equal(model.average.weights[name], p) for name, p in model.named_parameters() if p.requires_grad)
    assert f"{len(plain.state_dict())} weights" in sentence
    assert "of encoder" in sentence
    wider = tiny(TrainConfig(), nf=8)
    kept = {name: p.clone() for name, p in wider.named_parameters()}
    wider.start_from(tmp_path / "plain.ckpt")
    assert torch.equal(wider.backbone.input_conv.weight, kept["backbone.input_conv.weight"])
    with pytest.raises(UserError, match="absent"):
        model.start_from(tmp_path / "absent.ckpt")


@pytest.mark.parametrize("settings", [{}, LIGHT])
def test_a_prefix_is_the_reference_and_a_gap_before_both_inputs_and_leaves_no_trace_in_the_length(settings):
    model, data, inputs = tiny(reference_prepend=True, **settings), batch(), []
    model.backbone.register_forward_hook(lambda _, given, __: inputs.append(given))
    condition = model.encode(data["reference"], data["reference_length"])
    y, t = model.transform(data["noisy"]), torch.ones(2)
    x_t = y + 0.1
    output = model.predict(x_t, y, t, condition)
    assert output.shape == y.shape
    front = inputs[0][0].shape[-1] - y.shape[-1]
    for given, own in zip(inputs[0][:2], (x_t, y), strict=True):
        assert torch.equal(given[..., front:], own)
        assert torch.equal(given[..., :front], condition.prefix)
    assert condition.prefix[..., 1:40].abs().sum() > 0
    assert condition.prefix[..., -10:].abs().sum() == 0


def test_a_prefix_and_the_mixture_are_scaled_alike_at_every_time():
    model, data, inputs = tiny(reference_prepend=True, c_in="edm", **OUVE), batch(), []
    model.backbone.register_forward_hook(lambda _, given, __: inputs.append(given))
    condition, y = model.encode(data["reference"], data["reference_length"]), model.transform(data["noisy"])
    for time in (0.1, 1.0):
        model.predict(y, y, torch.full((2,), time), condition)
        front, given = condition.prefix.shape[-1], inputs[-1][1]
        factor = (given[..., front:].norm() / y.norm()).item()
        assert factor != pytest.approx(1)
        torch.testing.assert_close(given[..., :front], factor * condition.prefix)


def test_a_prefix_depends_on_no_other_item_and_is_silent_without_a_reference():
    model, data = tiny(reference_prepend=True), batch()
    both = model.encode(data["reference"], torch.tensor([6000, 0]))
    alone = model.encode(data["reference"][:1, :6000], torch.tensor([6000]))
    longer = model.encode(torch.nn.functional.pad(data["reference"], (0, 9000)), torch.tensor([6000, 6000]))
    assert torch.allclose(both.prefix[:1], alone.prefix)
    assert torch.allclose(longer.prefix[:1], alone.prefix)
    assert not both.prefix[1].any()


@pytest.mark.parametrize("name", ["reference_statistics", "reference_prepend"])
def test_what_describes_a_reference_needs_one(name):
    with pytest.raises(UserError, match=f"--{name}"):
        tiny(encoder="none", **{name: True})
