"""The predictive control: the same network, trained for one step from noisy to clean."""

import pytest
import torch
from tiny import batch, enhanced, tiny

from sgmse.common.errors import UserError
from sgmse.diffusion.losses import spectrogram_error, waveform_l1
from sgmse.diffusion.samplers import SamplerSettings, gaussian
from sgmse.diffusion.transform import pad_frames

ONE = SamplerSettings(N=1)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_training_asks_the_network_where_the_bridge_starts_and_nowhere_else():
    model, data, asked = tiny(sampler=ONE, objective="predictive"), batch(), []
    predict = model.predict
    model.predict = lambda x_t, y, t, c: asked.append((x_t, y, t)) or predict(x_t, y, t, c)
    _, t = model.loss(data, model.encode(data["reference"], data["reference_length"]), seeded())
    ((x_t, y, asked_t),) = asked
    assert torch.equal(x_t, y)
    assert torch.equal(y, model.transform(data["noisy"]))
    assert asked_t.eq(1).all()
    assert t.eq(1).all()


def test_its_loss_is_that_of_data_prediction_at_the_last_time():
    data, settings = batch(), {"l1_weight": 0.1}
    predictive, bridge = tiny(sampler=ONE, objective="predictive", **settings), tiny(**settings)
    bridge.load_state_dict(predictive.state_dict())
    x, y = bridge.transform(data["clean"]), bridge.transform(data["noisy"])
    condition = bridge.encode(data["reference"], data["reference_length"])
    estimate = bridge.predict(y, y, torch.ones(2), condition)
    waveform = bridge.transform.inverse(estimate, data["clean"].shape[-1])
    expected = spectrogram_error(estimate, x) + 0.1 * waveform_l1(waveform, data["clean"])
    assert torch.equal(predictive.loss(data, condition, seeded())[0], expected)


def test_enhancement_is_one_evaluation_of_the_network():
    model, data = tiny(sampler=ONE, objective="predictive"), batch()
    result = enhanced(model, data["noisy"], data["reference"], gaussian(seeded()))
    assert result.nfe == 1
    peak = data["noisy"].abs().amax(dim=-1, keepdim=True)
    y = pad_frames(model.transform(data["noisy"] / peak), model.backbone.frame_multiple, model.pad_mode)
    condition = model.encode(data["reference"] / peak, data["reference_length"])
    with torch.no_grad():
        once = model.transform.inverse(model.predict(y, y, torch.ones(2), condition), 2048) * peak
    assert torch.allclose(result.waveform, once, atol=1e-3 * peak.max())


@pytest.mark.parametrize(
    ("sampler", "message"),
    [(SamplerSettings(N=5), "--N 5"), (SamplerSettings(N=1, published_bridge=True), "--published_bridge")],
)
def test_more_than_one_step_is_refused(sampler, message):
    with pytest.raises(UserError, match=f"{message} does not fit the objective predictive"):
        tiny(sampler=sampler, objective="predictive")


def test_it_needs_the_bridge():
    with pytest.raises(UserError, match="--objective predictive does not fit --sde ouve"):
        tiny(sampler=ONE, objective="predictive", sde="ouve")
