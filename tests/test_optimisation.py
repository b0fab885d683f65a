"""How weights are trained: the optimiser, and what a resumed run takes of its settings."""

from dataclasses import replace

import torch

from sgmse.model.optimisation import adam, adopt_rates
from sgmse.settings.config import TrainConfig


def test_without_weight_decay_the_optimiser_is_adam():
    def trained(make):
        layer = torch.nn.Linear(3, 2)
        with torch.no_grad():
            layer.weight.copy_(torch.arange(6.0).view(2, 3))
            layer.bias.zero_()
        optimizer = make(layer)
        for i in range(5):
            optimizer.zero_grad()
            layer(torch.full((1, 3), 1.0 + i)).square().sum().backward()
            optimizer.step()
        return layer.weight.detach()

    settings = TrainConfig(lr=0.01, warmup_steps=0)
    ours = trained(lambda layer: adam(settings, layer.parameters(), [])["optimizer"])
    decayed = trained(lambda layer: adam(replace(settings, weight_decay=0.1), layer.parameters(), [])["optimizer"])
    assert torch.equal(ours, trained(lambda layer: torch.optim.Adam(layer.parameters(), lr=0.01, fused=True)))
    assert not torch.equal(ours, decayed)


def test_a_resumed_run_takes_the_rates_and_the_weight_decay_that_are_set_now():
    layer = torch.nn.Linear(3, 2)
    before = adam(TrainConfig(lr=0.01, warmup_steps=0), layer.parameters(), [])
    content = {
        "optimizer_states": [before["optimizer"].state_dict()],
        "lr_schedulers": [before["lr_scheduler"]["scheduler"].state_dict()],
    }
    now = TrainConfig(lr=0.002, weight_decay=0.1, warmup_steps=0)
    adopt_rates(content, now)
    resumed = adam(now, layer.parameters(), [])["optimizer"]
    resumed.load_state_dict(content["optimizer_states"][0])
    assert [(group["lr"], group["weight_decay"]) for group in resumed.param_groups] == [(0.002, 0.1)]
