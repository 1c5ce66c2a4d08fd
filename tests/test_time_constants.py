"""Learned time constants: the neuron with these numbers, learned, bounded, saved, moved, and given back."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.testing.nets.reference import surrogate_spike
from delaykit.wrapping.checkpoint.container import pack, unpack

PRE, N = 3, 5
SNN = {
    "Leaky": ({"beta": 0.8}, {"membrane": "beta"}),
    "RLeaky": ({"beta": 0.8, "linear_features": N}, {"membrane": "beta"}),
    "Synaptic": ({"alpha": 0.6, "beta": 0.8}, {"membrane": "beta", "synapse": "alpha"}),
    "RSynaptic": ({"alpha": 0.6, "beta": 0.8, "linear_features": N}, {"membrane": "beta", "synapse": "alpha"}),
}
NORSE = ("LIFCell", "LIF", "LIFRecurrentCell", "LIFRefracCell", "LIFAdExRefracCell", "LIFBoxCell", "LICell", "LSNNCell")
WANTED = torch.tensor([0.75, 0.95, 0.9, 0.85, 0.8])  # above 1 - dt tau_inv of anything here is fine


def drive(features=N, seed=0):
    return 2.5 * torch.rand(25, 2, features, generator=torch.Generator().manual_seed(seed))


class SnnNet(nn.Module):
    def __init__(self, kind, **changed):
        import snntorch as snn

        super().__init__()
        torch.manual_seed(0)
        self.lif = getattr(snn, kind)(**{**SNN[kind][0], "spike_grad": surrogate_spike, **changed})

    def forward(self, x):
        state, out = self.lif.reset_mem(), []
        state = state if isinstance(state, tuple) else (state,)
        for step in x:
            spikes, *state = self.lif(step, *state)
            out.append(spikes)
            if hasattr(self.lif, "recurrent"):
                state = [spikes, *state]
        return torch.stack(out)


class NorseNet(nn.Module):
    def __init__(self, kind, **tau):
        import norse.torch as norse

        super().__init__()
        torch.manual_seed(0)
        cls = getattr(norse, kind)
        self.cell = cls(N, N) if "Recurrent" in kind else cls()
        if tau:
            self.cell.p = replaced(self.cell.p, tau)

    def forward(self, x):
        if type(self.cell).__name__ == "LIF":
            return self.cell(x)[0]
        state, out = None, []
        for step in x:
            output, state = self.cell(step, state)
            out.append(output)
        return torch.stack(out)


def replaced(p, tau):
    inside = next((name for name in ("lif", "lif_adex") if hasattr(p, name)), None)
    return p._replace(**{inside: getattr(p, inside)._replace(**tau)}) if inside else p._replace(**tau)


def tau_of(p):
    return getattr(p, "lif", getattr(p, "lif_adex", p))


def snn_net(kind, **changed):
    pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    return SnnNet(kind, **changed)


def norse_net(kind, **tau):
    pytest.importorskip("norse", reason="needs Norse, the extra `norse`")
    return NorseNet(kind, **tau)


def states_of(net):
    part = net.lif if hasattr(net, "lif") else net.cell
    kind = type(part).__name__
    if hasattr(net, "lif"):
        return list(SNN[kind][1])
    return ["membrane"] if kind == "LIFBoxCell" else ["membrane", "synapse"]


def wrapped(net, **options):
    name = "lif" if hasattr(net, "lif") else "cell"
    rule = tuple(dk.TimeConstants(state, **options) for state in states_of(net))
    like = next(net.parameters(), torch.zeros(0))
    return dk.wrap_(net, {name: rule}, example=drive().to(like.dtype))


ALL = [pytest.param(snn_net, kind, id=kind) for kind in SNN] + [
    pytest.param(norse_net, kind, id=f"norse-{kind}") for kind in NORSE
]


@pytest.mark.parametrize("per", ["neuron", "layer"])
@pytest.mark.parametrize(("make", "kind"), ALL)
def test_a_net_is_itself_until_something_is_learned_and_after_it_is_given_back(make, kind, per):
    net = make(kind)
    before, part = net(drive()), net.lif if hasattr(net, "lif") else net.cell
    cls, attributes = type(part), dict(part.__dict__)
    keys = list(net.state_dict())
    wrapped(net, per=per)
    assert torch.equal(net(drive()), before) and float(before.detach().abs().mean()) > 0.01
    assert list(dict.fromkeys(k for k in net.state_dict() if "dk_constants" not in k)) == keys
    dk.unwrap_(net)
    assert type(part) is cls and part.__dict__.get("p") is attributes.get("p") and list(net.state_dict()) == keys
    assert torch.equal(net(drive()), before)


@pytest.mark.parametrize("kind", list(SNN))
def test_learned_decays_are_those_of_a_neuron_built_with_them(kind):
    net, names = wrapped(snn_net(kind).double()), SNN[kind][1]
    own = {"linear_features": N} if "linear_features" in SNN[kind][0] else {}
    learns = {f"learn_{name}": True for name in names.values()}
    twin = snn_net(kind, **own, **{name: WANTED.double() for name in names.values()}, **learns).double()
    if own:
        twin.lif.recurrent.load_state_dict(net.lif.recurrent.state_dict())
    for part in net.lif.dk_constants.values():
        part.decay.data.copy_(WANTED)
    x = drive().double()
    assert torch.equal(net(x), twin(x))
    weights = torch.randn(25, 2, N, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (net(x) * weights).sum().backward()
    (twin(x) * weights).sum().backward()
    for state, name in names.items():
        wanted = getattr(twin.lif, name).grad
        assert bool(wanted.abs().min() > 0)
        torch.testing.assert_close(net.lif.dk_constants[state].decay.grad, wanted, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", NORSE)
def test_norses_rates_are_one_minus_decay_over_dt(kind):
    net = wrapped(norse_net(kind)).double()
    for part in net.cell.dk_constants.values():
        part.decay.data.copy_(WANTED)
    names = {"membrane": "tau_mem_inv", "synapse": "tau_syn_inv"}
    tau = {names[s]: ((1 - WANTED.double()) / 0.001).requires_grad_() for s in states_of(net)}
    twin = norse_net(kind, **tau).double()
    if "Recurrent" in kind:
        twin.cell.load_state_dict({k: v for k, v in net.cell.state_dict().items() if "dk" not in k})
    x = drive().double()
    torch.testing.assert_close(net(x), twin(x), rtol=1e-10, atol=1e-10)
    net(x).sum().backward()
    twin(x).sum().backward()
    for state, name in names.items():
        if state in net.cell.dk_constants:
            wanted = -tau[name].grad / 0.001
            assert bool(wanted.abs().max() > 0)
            torch.testing.assert_close(net.cell.dk_constants[state].decay.grad, wanted, rtol=1e-8, atol=1e-9)


def test_in_float64_norse_goes_on_with_its_rounded_numbers():
    net = norse_net("LIFRecurrentCell").double()
    before = net(drive().double())
    wrapped(net)
    assert net.cell.dk_constants["membrane"].decay.dtype == torch.float64
    torch.testing.assert_close(net(drive().double()), before, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("make", "kind"), ALL)
def test_they_are_in_a_group_and_go_back_into_their_bounds(make, kind):
    net = wrapped(make(kind), low=0.2, high=0.97)
    optimizer = torch.optim.SGD(dk.param_groups(net, lr=1.0, delay_lr=1e3))
    dk.attach(optimizer, net)
    assert len(optimizer.param_groups[1]["params"]) == len(states_of(net))
    net(drive()).sum().backward()
    optimizer.step()
    for part in [m for m in net.modules() if hasattr(m, "decay")]:
        decay = part.decay.detach()
        assert float(decay.min()) >= 0.2 - 1e-7 and float(decay.max()) <= 0.97 + 1e-7
        assert bool(((decay < 0.21) | (decay > 0.96)).any())  # it wanted to leave


@pytest.mark.parametrize(("make", "kind"), ALL)
@torch.no_grad()
def test_copies_pickles_casts_and_checkpoints_hold_them(make, kind, tmp_path):
    net = wrapped(make(kind))
    for part in [m for m in net.modules() if hasattr(m, "decay")]:
        part.decay.data.copy_(WANTED)
    dk.save(net, tmp_path / "constants")
    fresh = make(kind)
    assert not torch.equal(fresh(drive()), net(drive()))
    dk.load(fresh, tmp_path / "constants")
    assert torch.equal(fresh(drive()), net(drive()))
    for twin in (copy.deepcopy(net), wrapped(make(kind), init=WANTED)):
        assert torch.equal(twin(drive()), net(drive()))
        twin.load_state_dict(net.state_dict())
    base = {k: v for k, v in net.state_dict().items() if "dk" not in k}
    net.load_state_dict(base)  # a checkpoint of the bare model
    assert {m.decay.dtype for m in net.double().modules() if hasattr(m, "decay")} == {torch.float64}
    assert torch.isfinite(net(drive().double())).all()
    assert {m.decay.dtype for m in net.half().modules() if hasattr(m, "decay")} == {torch.float32}


def test_a_neuron_alone_is_pickled_with_its_decays():
    snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    net = dk.wrap_(snn.Leaky(beta=0.9, init_hidden=True), {"": dk.TimeConstants(per="layer", init=0.5)})
    del net.spike_grad  # a closure, which nobody can pickle
    net.mem = torch.zeros(0)
    assert pickle.loads(pickle.dumps(net)).beta.item() == 0.5


@pytest.mark.parametrize(("per", "shape"), [("layer", ()), ("channel", (4, 1, 1)), ("neuron", (4, 3, 3))])
def test_one_a_layer_a_channel_or_a_neuron_behind_a_convolution(per, shape):
    snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    net = nn.Sequential(nn.Conv2d(2, 4, 3), snn.Leaky(beta=0.9, init_hidden=True))
    x = torch.rand(2, 2, 5, 5)
    rules = {"1": dk.TimeConstants("membrane", per=per, init="uniform", low=0.5), "0": dk.FreeDelay("axonal")}
    dk.wrap_(net, rules, example=x)
    assert net[1].beta.shape == shape and net(x).shape == (2, 4, 3, 3)
    assert bool(((net[1].beta >= 0.5) & (net[1].beta <= 1.0)).all())


def test_beside_a_recurrent_connection_and_off_inside_disabled():
    net = snn_net("Leaky")
    before = net(drive())
    rule = (dk.Recurrent(dk.FreeDelay("axonal", init=2.0), weight="zeros"), dk.TimeConstants(init=0.3))
    print(plan := dk.plan(net, {"lif": rule}, example=drive()))
    assert "lif.membrane" in str(plan) and "lif.recurrent" in str(plan) and not plan.issues
    dk.wrap_(net, plan)
    assert [site.name for site in dk.wrapped_sites(net)] == ["lif.recurrent"]
    assert [line.name for line in dk.status(net).sites] == ["lif.recurrent", "lif.membrane"]
    assert not torch.equal(net(drive()), before)
    with dk.disabled(net):
        assert torch.equal(net(drive()), before)
    assert torch.equal(dk.unwrap_(net)(drive()), before)


def test_rollout_and_fused_runs_step_with_them():
    pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    import snntorch as snn

    torch.manual_seed(0)
    options = {"beta": 0.9, "spike_grad": surrogate_spike}

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.lif = nn.Linear(N, 8), snn.Leaky(**options)

        def forward(self, x):
            mem, out = self.lif.reset_mem(), []
            for step in x:
                spikes, mem = self.lif(self.fc(step), mem)
                out.append(spikes)
            return torch.stack(out)

    net, x = Net().double(), drive().double()
    dk.wrap_(net, {"lif": dk.TimeConstants(init="uniform", low=0.3), "fc": dk.FreeDelay("axonal")}, example=x)
    wanted = net(x)
    (gradient,) = torch.autograd.grad(wanted.sum(), [net.lif.dk_constants["membrane"].decay])
    fused = dk.fused(net, example=x)
    got = fused(x)
    (same,) = torch.autograd.grad(got.sum(), [net.lif.dk_constants["membrane"].decay])
    assert torch.equal(got, wanted) and 0.02 < float(wanted.mean()) < 0.9
    torch.testing.assert_close(same, gradient, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "rule", "said"),
    [
        (lambda snn: snn.Alpha(alpha=0.9, beta=0.8, init_hidden=True), dk.TimeConstants(), "no decay"),
        (lambda snn: snn.Lapicque(beta=0.8, init_hidden=True), dk.TimeConstants(), "no decay"),
        (lambda snn: snn.Leaky(beta=0.8, init_hidden=True), dk.TimeConstants("synapse"), "a membrane decay"),
        (lambda snn: snn.Leaky(0.8, learn_beta=True, init_hidden=True), dk.TimeConstants(), "learned already"),
        (lambda snn: snn.Leaky(beta=0.8, init_hidden=True), dk.TimeConstants(high=0.5), "low and high"),
        (lambda snn: snn.Leaky(beta=0.8, init_hidden=True), dk.TimeConstants(init=[0.1, 0.2]), "shape (3,)"),
        (lambda snn: snn.Leaky(torch.full((3,), 0.8), init_hidden=True), dk.TimeConstants(per="layer"), "shape ()"),
        (lambda snn: snn.Leaky(beta=0.8, init_hidden=True), dk.At(dk.TimeConstants()), "no connection"),
        (lambda snn: snn.Leaky(beta=0.8, init_hidden=True), dk.Recurrent(dk.TimeConstants()), "a neuron's own"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_touched(build, rule, said):
    snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    net = nn.Sequential(nn.Linear(2, 3), build(snn))
    classes = [type(m) for m in net.modules()]
    with pytest.raises(dk.WrapError) as caught:
        dk.wrap_(net, {"1": rule}, example=torch.rand(1, 2))
    assert said in str(caught.value) and [type(m) for m in net.modules()] == classes


def test_a_connection_is_no_place_and_a_neuron_gets_them_once_and_needs_an_example():
    snn = pytest.importorskip("snntorch", reason="needs snnTorch, the extra `snntorch`")
    net = nn.Sequential(nn.Linear(2, 3), snn.Leaky(beta=0.8, init_hidden=True))
    x = torch.rand(1, 2)
    for rules, example, said in (
        ({"0": dk.TimeConstants()}, x, "go on a neuron"),
        ({"0": dk.At(dk.TimeConstants())}, x, "name the neuron"),
        ({"1": dk.TimeConstants()}, None, "pass example="),
    ):
        assert said in str(dk.plan(net, rules, example).issues[0])
    dk.wrap_(net, {"1": dk.TimeConstants(per="layer")})
    assert "given before" in str(dk.plan(net, {"1": dk.TimeConstants()}, x).issues[0])


@pytest.mark.parametrize("field", ["neuron", "shape", "config", "state", "twice"])
def test_a_checkpoint_that_was_changed_is_refused(field, tmp_path):
    net = wrapped(snn_net("Leaky"))
    dk.save(net, tmp_path / "good")
    meta, tensors = unpack((tmp_path / "good.safetensors").read_bytes(), "good")
    record = meta["neurons"][0]
    if field == "twice":
        meta["neurons"].append(record)
    elif field == "state":
        record["config"]["state"] = "synapse"
    else:
        record[field] = {"neuron": "gone", "shape": [2**30], "config": {"state": "membrane", "new": 1}}[field]
    (tmp_path / "bad.safetensors").write_bytes(pack(tensors, meta, "bad"))
    for model in (snn_net("Leaky"), wrapped(snn_net("Leaky"))):
        with pytest.raises(dk.CheckpointError):
            dk.load(model, tmp_path / "bad")


def test_a_model_with_other_bounds_refuses_a_checkpoint(tmp_path):
    dk.save(wrapped(snn_net("Leaky")), tmp_path / "good")
    with pytest.raises(dk.CheckpointError, match="time constants"):
        dk.load(wrapped(snn_net("Leaky"), high=0.9), tmp_path / "good")
    dk.load(wrapped(snn_net("Leaky"), init=0.3), tmp_path / "good")
