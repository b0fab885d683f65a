"""Averaged weights."""

import torch

from sgmse.model.optimisation import AveragedWeights


def test_average_follows_the_recursion_by_name_and_leaves_frozen_weights_out():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    net[1].requires_grad_(False)
    average = AveragedWeights(net, decay=0.5)
    assert set(average.weights) == {"0.weight", "0.bias"}
    expected = net[0].weight.detach().clone()
    for n in range(1, 20):
        torch.nn.init.normal_(net[0].weight)
        average.update(net)
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * net[0].weight.detach()
    torch.testing.assert_close(average.weights["0.weight"], expected)


def test_swap_restores_the_raw_weights_bit_for_bit_even_after_an_error():
    net = torch.nn.Linear(3, 3)
    average = AveragedWeights(net, decay=0.9)
    torch.nn.init.normal_(net.weight)
    raw = net.weight.detach().clone()
    try:
        with average.swapped_into(net):
            assert torch.equal(net.weight, average.weights["weight"])
            assert not torch.equal(net.weight, raw)
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert torch.equal(net.weight, raw)


def test_neither_train_nor_eval_touches_the_weights():
    net = torch.nn.Linear(3, 3)
    average = AveragedWeights(net, decay=0.9)
    torch.nn.init.normal_(net.weight)
    raw = net.weight.detach().clone()
    net.eval()
    net.train()
    assert torch.equal(net.weight, raw)
    assert not torch.equal(average.weights["weight"], raw)


def test_state_survives_a_round_trip_and_refuses_another_model():
    net = torch.nn.Linear(3, 3)
    average = AveragedWeights(net, decay=0.9)
    torch.nn.init.normal_(net.weight)
    average.update(net)
    again = AveragedWeights(torch.nn.Linear(3, 3), decay=0.1)
    again.load_state_dict(average.state_dict())
    assert again.num_updates == 1
    assert again.decay == 0.1, "the decay in force is the one of the settings"
    assert torch.equal(again.weights["weight"], average.weights["weight"])
    try:
        AveragedWeights(torch.nn.Sequential(net), decay=0.1).load_state_dict(average.state_dict())
    except KeyError:
        return
    raise AssertionError("weights of another model were accepted")
