"""Torch's fast paths, which read a layer's weight and never call it, in evaluation without gradients."""

from __future__ import annotations

import copy
import pickle

import pytest
import snntorch as snn
import torch
from torch import Tensor, nn

import delaykit as dk


class Transformer(nn.Module):
    """A stock encoder (layer) before a neuron, called at every step."""

    def __init__(self, stacked: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2) if stacked else layer
        self.neuron = snn.Leaky(0.8, threshold=0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Return the membranes of all steps."""
        membrane, seen = self.neuron.reset_mem(), []
        for step in x:
            _, membrane = self.neuron(self.encoder(step), membrane)
            seen.append(membrane)
        return torch.stack(seen)


@pytest.mark.parametrize("stacked", [False, True])
@pytest.mark.parametrize("copied", [lambda net: net, copy.deepcopy])
def test_a_transformer_has_its_delays_in_evaluation_too(stacked, copied):
    bare, x = Transformer(stacked), (torch.rand(10, 2, 5, 8) < 0.4).float()
    rules = {"encoder*linear1": dk.FreeDelay("axonal", max_delay=5, init=2.0)}
    net = copied(dk.wrap(bare, rules, example=x))
    with torch.no_grad():
        training, evaluation, without = net.train()(x), net.eval()(x), bare.eval()(x)
    torch.testing.assert_close(evaluation, training)
    assert (evaluation - without).abs().max() > 0.1
    dk.unwrap_(net)
    with torch.no_grad():
        assert torch.equal(net(x), without)
    assert not any(module._forward_pre_hooks for module in net.modules())


def test_a_wrapped_layer_of_a_transformer_pickles():
    net = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True))
    dk.wrap_(net, {"0.linear1": dk.At(dk.FreeDelay("axonal", max_delay=5, init=2.0), reset="manual")})
    assert pickle.loads(pickle.dumps(net))[0].linear1.dk is not None
