"""A population has one set of positions, whoever asks: sharing in wrapped nets, copies, checkpoints, and refusals."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import snntorch as snn
import torch
from torch import nn

import delaykit as dk
from delaykit.arrivals import Linear
from delaykit.testing.stored_checkpoints import rewrite_checkpoint
from delaykit_spatial import Spatial, Torus, parameter_accounting, populations, register_metric, spatial_param_groups
from delaykit_spatial.delay import WithoutSelf

IN, HIDDEN, OUT, TIME = 5, 6, 3, 12


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(IN, HIDDEN)
        self.rlif = snn.RSynaptic(alpha=0.6, beta=0.8, linear_features=HIDDEN, threshold=0.4)
        self.fc2 = nn.Linear(HIDDEN, OUT)

    def forward(self, x):
        spikes, syn, mem = self.rlif.init_rsynaptic()
        out = []
        for step in x:
            spikes, syn, mem = self.rlif(self.fc1(step), spikes, syn, mem)
            out.append(self.fc2(spikes))
        return torch.stack(out)


RULES = {
    "fc1": Spatial(2, pre="input", post="hidden", scale=3.0),
    "rlif.recurrent": Spatial(2, post="hidden", scale=3.0),
    "fc2": Spatial(2, pre="hidden", post="out", scale=3.0),
}
INPUT = (torch.rand(TIME, 2, IN, generator=torch.Generator().manual_seed(2)) < 0.5).float()


def bare():
    torch.manual_seed(0)
    net = Net()
    with torch.no_grad():
        net.fc1.weight *= 3
    return net


def wrapped(rules=RULES):
    return dk.wrap_(bare(), rules, example=INPUT, generator=torch.Generator().manual_seed(1))


def places(net):
    one, loop, two = net.fc1.dk.delay, net.rlif.recurrent.dk.delay, net.fc2.dk.delay
    return [one.post_positions, loop.post_positions, loop.pre_positions, two.pre_positions]


def test_a_population_is_one_parameter_under_several_keys() -> None:
    net = wrapped()
    hidden = places(net)
    assert all(p is hidden[0] for p in hidden)
    assert {name: tuple(p.shape) for name, p in populations(net).items()} == {
        "input": (IN, 2), "hidden": (HIDDEN, 2), "out": (OUT, 2)}  # fmt: skip
    assert parameter_accounting(net).delays == 2 * (IN + HIDDEN + OUT)
    assert len([k for k in net.state_dict() if k.endswith("positions")]) == 6


def test_it_is_trained_once_and_hears_from_every_connection() -> None:
    net = wrapped()
    for groups in (dk.param_groups(net, lr=1e-3), spatial_param_groups(net, lr=1e-3)):
        assert len(groups[1]["params"]) == 3 and len({id(p) for p in groups[1]["params"]}) == 3
    assert groups[1]["lr"] == pytest.approx(1e-2)
    net(INPUT).pow(2).sum().backward()
    together = places(net)[0].grad.clone()
    alone = torch.zeros_like(together)
    for site in RULES:
        twin = wrapped()
        rest = [twin.get_submodule(other).dk.delay for other in RULES if other != site]
        for delay in rest:  # the same places, but nobody listens to what they would rather be
            for name in ("pre_positions", "post_positions"):
                setattr(delay, name, nn.Parameter(getattr(delay, name).detach().clone(), requires_grad=False))
        twin(INPUT).pow(2).sum().backward()
        alone += dict(twin.get_submodule(site).dk.delay.positions())["hidden"].grad
    assert float(together.abs().sum()) > 0
    torch.testing.assert_close(together, alone)
    optimizer = torch.optim.Adam(spatial_param_groups(net, lr=1e-3))
    dk.attach(optimizer, net)
    optimizer.step()
    assert all(p is places(net)[0] for p in places(net))


def test_copies_share_among_themselves() -> None:
    net = wrapped()
    twin = copy.deepcopy(net)
    assert all(p is places(twin)[0] for p in places(twin)) and places(twin)[0] is not places(net)[0]
    twin(INPUT).sum().backward()
    assert places(net)[0].grad is None and places(twin)[0].grad is not None


@pytest.mark.parametrize("wrapped_first", [False, True])
def test_checkpoints_hold_positions_once_and_share_again(tmp_path: Path, wrapped_first: bool) -> None:
    net = wrapped()
    dk.save(net, tmp_path / "places")
    written: dict[str, Any] = {}
    rewrite_checkpoint(tmp_path / "places", lambda plan, tensors: written.update(plan, tensors=list(tensors)))
    held, aliases = [k for k in written["tensors"] if k.endswith("positions")], written["aliases"]
    assert len(held) == 3 and len([k for k in aliases if k.endswith("positions")]) == 3
    fresh = dk.wrap_(bare(), RULES, example=INPUT) if wrapped_first else bare()
    dk.load(fresh, tmp_path / "places")
    assert all(p is places(fresh)[0] for p in places(fresh)) and torch.equal(places(fresh)[0], places(net)[0])
    assert torch.equal(fresh(INPUT), net(INPUT))


def disagreeing(net: Net) -> dict[str, torch.Tensor]:
    state = {k: v.clone() for k, v in net.state_dict().items()}
    state["fc2.dk.delay.pre_positions"] += 1.0
    return state


def say_hidden(plan: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    for site in plan["sites"]:
        site["components"][0]["config"]["pre"] = RULES[site["site"]].pre


def test_values_that_disagree_about_shared_positions_are_refused(tmp_path: Path) -> None:
    """As a net that was trained with positions of its own for each connection would bring them."""
    net, apart = wrapped(), wrapped({**RULES, "fc2": Spatial(2, pre="others", post="out", scale=3.0)})
    before = places(net)[0].detach().clone()
    for load in (lambda: net.load_state_dict(disagreeing(net)), lambda: net.load_state_dict(apart.state_dict())):
        with pytest.raises(dk.CheckpointError, match=r"different values for fc1.*post_positions and .*one value"):
            load()
        assert torch.equal(places(net)[0], before)
    net.load_state_dict({k: v.clone() for k, v in net.state_dict().items()})
    dk.save(apart, tmp_path / "apart")
    with pytest.raises(dk.CheckpointError, match=r"pre='others'.*pre='hidden'"):
        dk.load(net, tmp_path / "apart")
    rewrite_checkpoint(tmp_path / "apart", say_hidden)
    with pytest.raises(dk.CheckpointError, match="different values for"):
        dk.load(net, tmp_path / "apart")
    assert torch.equal(places(net)[0], before)


def test_unwrapping_drops_positions() -> None:
    net, before = bare(), bare()
    dk.wrap_(net, RULES, example=INPUT)
    dk.unwrap_(net)
    assert list(net.state_dict()) == list(before.state_dict()) and torch.equal(net(INPUT), before(INPUT))


def test_moving_and_casting_keep_one_parameter() -> None:
    net = wrapped().double()
    assert all(p is places(net)[0] and p.dtype == torch.float64 for p in places(net))


def test_a_neuron_names_its_population_by_itself() -> None:
    net = wrapped({"fc1": Spatial(2), "rlif.recurrent": Spatial(2)})
    assert net.fc1.dk.delay.post == "rlif" and list(populations(net)) == ["fc1:pre", "rlif"]
    assert net.fc1.dk.delay.post_positions is net.rlif.recurrent.dk.delay.post_positions


def test_a_later_wrap_joins_the_population() -> None:
    net = dk.wrap_(bare(), {"fc1": RULES["fc1"]}, example=INPUT)
    before = net.fc1.dk.delay.post_positions
    dk.wrap_(net, {"fc2": RULES["fc2"]}, example=INPUT)
    assert net.fc2.dk.delay.pre_positions is before


QUARRELS = {
    "dims": (Spatial(3, pre="hidden", post="out"), "6 neurons in 3 dims"),
    "size": (Spatial(2, pre="out", post="hidden"), "3 neurons in 2 dims"),
    "start": (Spatial(2, pre="hidden", pre_init="circle", post="out"), "'circle'"),
    "scale": (Spatial(2, pre="hidden", pre_init="normal", post="out", scale=9.0), "scale 9"),
    "given": (Spatial(2, pre="hidden", pre_init=[[0.0, 0.0]] * HIDDEN, post="out"), "given"),
    "learn": (Spatial(2, pre="hidden", post="out", learn=False), "learn=False"),
}


@pytest.mark.parametrize("case", QUARRELS)
def test_connections_that_disagree_are_refused_before_anything_is_touched(case: str) -> None:
    rule, text = QUARRELS[case]
    net = bare()
    before = {name: (id(m), type(m)) for name, m in net.named_modules()}
    rules = RULES | {"fc2": rule}
    assert [type(issue) for issue in dk.plan(net, rules, example=INPUT).issues] == [dk.ConfigError]
    with pytest.raises(dk.WrapError, match=text) as caught:
        dk.wrap_(net, rules, example=INPUT)
    assert "fc2" in str(caught.value) and "fc1" in str(caught.value)
    assert before == {name: (id(m), type(m)) for name, m in net.named_modules()}


def test_dims_zero_and_inf_have_no_positions_to_share() -> None:
    net = wrapped(RULES | {"fc2": Spatial(math.inf, pre="hidden"), "rlif.recurrent": Spatial(0, post="hidden")})
    assert list(populations(net)) == ["input", "hidden"]


def test_a_net_with_an_unnamed_metric_is_not_saved(tmp_path: Path) -> None:
    net = dk.wrap_(bare(), {"fc1": Spatial(2, metric=Torus(7.0))}, example=INPUT)
    with pytest.raises(dk.ConfigError, match="register_metric"):
        dk.save(net, tmp_path / "torus")
    register_metric("a torus of 7", Torus(7.0))
    dk.save(net, tmp_path / "torus")
    assert torch.equal(dk.load(bare(), tmp_path / "torus")(INPUT), net(INPUT))


def test_frozen_positions_are_not_trained() -> None:
    net = wrapped({"fc1": Spatial(2, learn=False)})
    assert not spatial_param_groups(net, 1e-3)[1]["params"] and not dk.param_groups(net, 1e-3)[1]["params"]


def test_exact_gradients_reach_positions_and_leave_self_connections_out() -> None:
    rules = {
        site: Spatial(2, pre=rule.pre, post=rule.post, scale=3.0, estimator="exact") for site, rule in RULES.items()
    }
    del rules["fc2"]  # the readout is no neuron
    net = wrapped(rules)
    out = net(INPUT)
    out.pow(2).sum().backward()
    hidden = net.fc1.dk.delay.post_positions
    assert bool(hidden.grad.any()) and torch.isfinite(hidden.grad).all()
    assert not bool(net.rlif.recurrent.weight.grad.diagonal().any())
    plain = nn.Sequential(nn.Linear(3, 2), snn.Leaky(beta=0.5, init_hidden=True))
    with pytest.raises(dk.WrapError, match="synaptic current.*interp"):
        dk.wrap_(plain, {"0": Spatial(2, estimator="exact")}, example=torch.ones(1, 3))


def test_rollout_equals_the_loop_with_self_connections_cut() -> None:
    net = wrapped({"rlif.recurrent": RULES["rlif.recurrent"]})
    loop = net(INPUT)
    spikes, _ = dk.rollout(net.rlif, net.fc1(INPUT))
    assert 0.02 < float(spikes.detach().mean()) < 0.6
    torch.testing.assert_close(net.fc2(spikes), loop)


@pytest.mark.parametrize("dims", [0, 2, math.inf])
def test_a_rollout_shares_cells_although_self_connections_are_cut(dims: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def slopes() -> list[torch.Tensor]:
        net = wrapped({"rlif.recurrent": Spatial(dims, post="hidden", floor=9.0)}).double()
        spikes, membrane = dk.rollout(net.rlif, net.fc1(INPUT.double()))
        (membrane.square().sum() + spikes.sum()).backward()
        return [membrane.detach(), *(p.grad for n, p in net.named_parameters() if not n.startswith("fc2"))]

    assert WithoutSelf(Linear(), HIDDEN).tents(torch.ones(1, 1)).shape == (HIDDEN, HIDDEN)
    fast = slopes()
    monkeypatch.setattr(WithoutSelf, "tents", lambda *_: None)
    for got, want in zip(fast, slopes(), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
