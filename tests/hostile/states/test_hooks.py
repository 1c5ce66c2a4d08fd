"""Hooks of a connection in Norse's ``SequentialState`` meet what they met on the bare model: one input, one output."""

import norse.torch as norse
import pytest
import torch
from torch import nn

import delaykit as dk

LIF = norse.LIFParameters(v_th=torch.tensor(0.3), alpha=torch.tensor(50.0))
DELAYS = {"axonal": [1.0, 0.0, 2.0], "dendritic": [2.0, 1.0]}


class Queue(nn.Module):
    """A Linear with whole delays of its inputs, or of its outputs, by a list."""

    def __init__(self, linear, granularity):
        super().__init__()
        self.linear, self.granularity, self.kept = linear, granularity, []

    def forward(self, x):
        axonal = self.granularity == "axonal"
        current = x if axonal else nn.functional.linear(x, self.linear.weight)
        self.kept.append(current)
        delays, rest = DELAYS[self.granularity], torch.zeros_like(current[:, 0])
        late = [self.kept[-1 - int(d)][:, k] if d < len(self.kept) else rest for k, d in enumerate(delays)]
        current = torch.stack(late, 1)
        return self.linear(current) if axonal else current + self.linear.bias


def make(granularity, delayed):
    torch.manual_seed(0)
    net = norse.SequentialState(nn.Linear(3, 2), norse.LIFCell(p=LIF), nn.Linear(2, 2), norse.LICell()).double()
    if not delayed:
        net[0] = Queue(net[0], granularity)
        return net
    component = dk.FreeDelay(granularity, max_delay=4)
    dk.wrap_(net, {"0": component}, example=lambda: net(torch.ones(1, 3).double(), None))
    with torch.no_grad():
        delay = net[0].dk.delay.delay
        delay.copy_(torch.tensor(DELAYS[granularity]).double().view_as(delay))
    return net


def run(net, steps=8):
    x = 3 * (torch.rand(steps, 4, 3, generator=torch.Generator().manual_seed(1)) < 0.5).double()
    outputs, state = [], None
    for step in x:
        output, state = net(step, state)
        outputs.append(output)
    outputs = torch.stack(outputs)
    net.zero_grad()
    outputs.square().sum().backward()
    connection = net[0].linear if isinstance(net[0], Queue) else net[0]
    return outputs, connection.weight.grad, connection.bias.grad


HOOKS = {
    "before, a tuple": lambda m: m.register_forward_pre_hook(lambda _, given: (given[0] * 0.5,)),
    "before, a tensor": lambda m: m.register_forward_pre_hook(lambda _, given: given[0] * 0.5),
    "before, all": lambda m: m.register_forward_pre_hook(lambda _, given: (given[0] * 0.5, *given[1:])),
    "before, with words": lambda m: m.register_forward_pre_hook(
        lambda _, given, words: ((given[0] * 0.5,), words), with_kwargs=True
    ),
    "behind": lambda m: m.register_forward_hook(lambda _, __, output: output * 1.5),
    "behind, always": lambda m: m.register_forward_hook(lambda _, __, output: output + 1, always_call=True),
    "backward": lambda m: m.register_full_backward_hook(lambda _, of_input, __: (of_input[0],)),
    "backward, before": lambda m: m.register_full_backward_pre_hook(lambda _, grad: (grad[0] * 0.5,)),
}


@pytest.mark.parametrize("granularity", DELAYS)
@pytest.mark.parametrize("hook", HOOKS)
def test_a_hook_changes_what_it_changes_on_the_bare_model(hook, granularity):
    late, by_hand = make(granularity, True), make(granularity, False)
    plain = run(by_hand)[1]
    by_hand[0].kept.clear()
    for net in (late, by_hand):
        HOOKS[hook](net[0])
    found, expected = run(late), run(by_hand)
    assert hook == "backward" or not torch.allclose(plain, expected[1])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def test_a_hook_from_before_the_wrap_goes_on():
    net, seen = make("axonal", False), []
    net[0] = net[0].linear
    net[0].register_forward_hook(lambda _, given, output: seen.append((len(given), type(output))))
    dk.wrap_(net, {"0": dk.FreeDelay("axonal", max_delay=4)}, example=lambda: net(torch.ones(1, 3).double(), None))
    del seen[:]
    run(net, 2)
    dk.unwrap_(net)
    run(net, 2)
    assert seen == [(1, torch.Tensor)] * 4


def test_hooks_of_states_are_those_of_neurons():
    net, seen = make("dendritic", True), []
    net.register_forward_state_hooks(lambda module, _, __: seen.append(type(module).__name__))
    run(net, 2)
    net.remove_forward_state_hooks()
    run(net, 2)
    assert seen == ["LIFCell", "LICell"] * 2
