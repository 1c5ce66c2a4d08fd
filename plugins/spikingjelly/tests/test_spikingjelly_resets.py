"""When delays begin anew: with SpikingJelly's own resets, however they are made, and never without one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from spikingjelly.activation_based import base, functional, layer, neuron
from torch import Tensor, nn

import delaykit as dk

TIME = 8


def make(mode: str = "s", delay: float = 3.0, **options: Any) -> Any:
    """One input with weight 1 and a perfect integrator: what arrives is what it fires."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False), neuron.IFNode(v_threshold=0.5, step_mode=mode, **options)).double()
    nn.init.ones_(net[0].weight)
    example = impulse()[:4] if mode == "m" else lambda: [net(x) for x in impulse()[:4]]
    return dk.wrap_(net, {"0": dk.FreeDelay("axonal", max_delay=5, init=delay)}, example=example)


def impulse(at: int = 0, time: int = TIME, batch: int = 1) -> Tensor:
    x = torch.zeros(time, batch, 1, dtype=torch.float64)
    x[at] = 1.0
    return x


def fired(net: Any, x: Tensor) -> list[int]:
    out = net(x) if net[1].step_mode == "m" else torch.stack([net(step) for step in x])
    return out[:, 0, 0].nonzero().flatten().tolist()


RESETS: dict[str, Callable[[Any], Any]] = {
    "functional.reset_net": functional.reset_net,
    "the node's own reset": lambda net: net[1].reset(),
    "a float by hand": lambda net: setattr(net[1], "v", 0.0),
}


@pytest.mark.parametrize("how", RESETS)
@pytest.mark.parametrize("mode", ["s", "m"])
def test_a_reset_empties_the_line(mode: str, how: str) -> None:
    net = make(mode)
    assert fired(net, impulse()) == [3]
    RESETS[how](net)
    assert fired(net, impulse(at=6)) == []  # under way: it would arrive at 9
    RESETS[how](net)
    assert fired(net, torch.zeros(TIME, 1, 1, dtype=torch.float64)) == []


@pytest.mark.parametrize("mode", ["s", "m"])
def test_without_a_reset_what_is_under_way_arrives(mode: str) -> None:
    net = make(mode)
    assert fired(net, impulse(at=6)) == []
    assert fired(net, torch.zeros(TIME, 1, 1, dtype=torch.float64)) == [1]


@pytest.mark.parametrize("mode", ["s", "m"])
def test_a_reset_to_a_tensor_is_seen_though_it_is_written_in_place(mode: str) -> None:
    net = make(mode)
    fired(net, impulse(at=6))
    net[1].set_reset_value("v", torch.full((1, 1), 0.25, dtype=torch.float64))
    membrane = net[1].v
    functional.reset_net(net)
    assert net[1].v is membrane and float(membrane) == 0.25
    assert fired(net, torch.zeros(TIME, 1, 1, dtype=torch.float64)) == []


@pytest.mark.parametrize("mode", ["s", "m"])
def test_a_net_reset_before_it_was_wrapped_is_reset_after(mode: str) -> None:
    """reset_net remembers the modules of a net from its first call on."""
    net = nn.Sequential(nn.Linear(1, 1, bias=False), neuron.IFNode(v_threshold=0.5, step_mode=mode)).double()
    nn.init.ones_(net[0].weight)
    functional.reset_net(net)
    example = impulse()[:4] if mode == "m" else lambda: [net(x) for x in impulse()[:4]]
    dk.wrap_(net, {"0": dk.FreeDelay("axonal", max_delay=5, init=3)}, example=example)
    assert fired(net, impulse(at=6)) == []
    functional.reset_net(net)
    assert fired(net, torch.zeros(TIME, 1, 1, dtype=torch.float64)) == []
    dk.unwrap_(net)
    functional.reset_net(net)
    assert fired(net, impulse()) == [0]


def test_a_reset_inside_forward_begins_each_call_anew() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.node = nn.Linear(1, 1, bias=False), neuron.IFNode(v_threshold=0.5)

        def forward(self, x: Tensor) -> Tensor:
            functional.reset_net(self)
            return torch.stack([self.node(self.fc(step)) for step in x])

    net = Net().double()
    nn.init.ones_(net.fc.weight)
    dk.wrap_(net, {"fc": dk.FreeDelay("axonal", max_delay=5, init=3)}, example=impulse()[:4])
    for at, wanted in ((6, []), (0, [3]), (6, []), (1, [4])):
        assert net(impulse(at))[:, 0, 0].nonzero().flatten().tolist() == wanted


@pytest.mark.parametrize("mode", ["s", "m"])
def test_a_membrane_replaced_by_equal_values_goes_on(mode: str) -> None:
    """Zeros by hand where the membrane was zero are equal values: what is under way arrives."""
    net = make(mode)
    assert fired(net, impulse(at=6)) == []
    net[1].v = torch.zeros(1, 1, dtype=torch.float64)
    assert fired(net, torch.zeros(TIME, 1, 1, dtype=torch.float64)) == [1]


@pytest.mark.parametrize("mode", ["s", "m"])
def test_another_batch_size_is_another_sequence_after_a_reset_alone(mode: str) -> None:
    net = make(mode)
    fired(net, impulse(at=6))
    if mode == "s":
        with pytest.raises(dk.DelaykitError, match="rows"):
            fired(net, torch.zeros(TIME, 3, 1, dtype=torch.float64))
    functional.reset_net(net)
    assert fired(net, torch.zeros(TIME, 3, 1, dtype=torch.float64)) == []


def test_a_readout_behind_the_last_neuron_follows_the_first() -> None:
    net = nn.Sequential(neuron.IFNode(v_threshold=0.5), nn.Linear(1, 1, bias=False)).double()
    nn.init.ones_(net[1].weight)
    dk.wrap_(net, {"1": dk.FreeDelay("axonal", max_delay=5, init=3)}, example=lambda: [net(x) for x in impulse()[:4]])
    for wanted in ([3], [3]):
        out = torch.stack([net(x) for x in impulse()])
        assert out[:, 0, 0].nonzero().flatten().tolist() == wanted
        functional.reset_net(net)


@pytest.mark.parametrize(("before", "after"), [("s", "m"), ("m", "s")])
def test_a_change_of_the_step_mode_is_refused_before_a_wrong_number_leaves_the_net(before: str, after: str) -> None:
    net = make(before)
    functional.set_step_mode(net, after)
    with pytest.raises(dk.DelaykitError):
        net(impulse() if after == "m" else impulse()[0])


def test_a_shared_layer_in_multi_step_mode_keeps_a_past_for_each_of_its_neurons() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = layer.Linear(1, 1, bias=False, step_mode="m")
            self.one = neuron.IFNode(v_threshold=0.5, step_mode="m")
            self.two = neuron.IFNode(v_threshold=0.5, step_mode="m")

        def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return self.one(self.fc(x)), self.two(self.fc(y))

    net = Net().double()
    nn.init.ones_(net.fc.weight)
    dk.wrap_(net, {"fc": dk.FreeDelay("axonal", max_delay=5, init=3)}, example=(impulse()[:4], impulse()[:4]))
    silent = torch.zeros(TIME, 1, 1, dtype=torch.float64)
    assert not any(bool(out.any()) for out in net(impulse(6), silent))
    one, two = net(silent, silent)
    assert one[:, 0, 0].nonzero().flatten().tolist() == [1] and not bool(two.any())


def test_a_node_without_a_state_begins_anew_with_every_call() -> None:
    net = nn.Sequential(nn.Linear(1, 1, bias=False), neuron.NonSpikingIFNode(decode="max-mem")).double()
    nn.init.ones_(net[0].weight)
    dk.wrap_(net, {"0": dk.FreeDelay("axonal", max_delay=5, init=3)}, example=impulse()[:4])
    for at, wanted in ((6, 0.0), (0, 1.0), (6, 0.0)):
        assert float(net(impulse(at)).detach()) == wanted
        functional.reset_net(net)  # finds nothing to reset, and does not fail


def test_states_passed_by_hand_go_on_or_are_refused() -> None:
    """SpikingJelly puts given states into a model that it must run as it is, and asks the nodes of others directly."""
    net, states, out = make(), (0.0,), []
    step = base.to_functional_forward(net)
    for x in impulse():
        (spike,), states = step((x,), states)
        out.append(spike)
    assert torch.stack(out)[:, 0, 0].nonzero().flatten().tolist() == [3]
    inner = nn.Sequential(nn.Sequential(nn.Linear(1, 1), neuron.IFNode())).double()
    dk.wrap_(inner, {"*": dk.FreeDelay("axonal")}, example=lambda: [inner(x) for x in impulse()[:4]])
    with pytest.raises(dk.DelaykitError, match="explicit states"):
        base.to_functional_forward(inner[0])((impulse()[0],), (0.0,))


def test_containers_that_hide_time_are_refused_with_the_way_on() -> None:
    net = nn.Sequential(layer.TLastSeqToANNContainer(nn.Linear(2, 3)), nn.Flatten()).double()
    plan = dk.plan(net, {"*": dk.FreeDelay("axonal")}, example=torch.zeros(2, 2, 5, dtype=torch.float64))
    assert "time first" in str(plan.issues[0])


@pytest.mark.parametrize("reset", ["auto", "root"])
def test_another_step_mode_is_refused(reset: str) -> None:
    net = nn.Sequential(layer.Linear(1, 1, step_mode="m"), neuron.IFNode(step_mode="m"))
    dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", max_delay=5), reset=reset)}, example=torch.zeros(6, 2, 1))
    functional.set_step_mode(net, "s")
    with pytest.raises(dk.HistoryError, match="step_mode"):
        net(torch.zeros(2, 1))
    dk.unwrap_(net)
    assert type(net[0]) is layer.Linear and net(torch.zeros(2, 1)).shape == (2, 1)


@pytest.mark.parametrize("change", ["dtype", "batch"])
def test_a_piece_of_another_kind_is_refused_while_spikes_are_under_way(change: str) -> None:
    net = make("m")
    fired(net, impulse(at=6))
    if change == "dtype":
        net.float()
    piece = torch.zeros(TIME, 3 if change == "batch" else 1, 1, dtype=next(net.parameters()).dtype)
    with pytest.raises(dk.HistoryError, match="under way"):
        fired(net, piece)
