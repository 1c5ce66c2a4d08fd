"""Delays of pairs of channels in models: a shifted convolution by hand, in every loop and life of a wrapping."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.attaching.connection.products import convolution_of
from delaykit.testing.nets.reference import surrogate_spike

snn = pytest.importorskip("snntorch", reason="wraps snnTorch models")


class ByHand(nn.Module):
    """Convolve every remembered input by the kernels whose spikes arrive now; shares no operator with delaykit."""

    def __init__(self, layer, delay):
        super().__init__()
        self.layer, self.delay, self.past = layer, nn.Parameter(delay.detach().clone()), []

    def forward(self, x):
        self.past.append(x)
        layer = self.layer
        pairs = layer.weight if not isinstance(layer, nn.ConvTranspose2d) else None
        total = 0.0
        for age, old in enumerate(reversed(self.past)):
            share = (1 - (age - self.delay).abs()).clamp(min=0)
            if pairs is not None:
                weight = layer.weight * share[:, :, None, None]
                total = total + layer._conv_forward(old, weight, None)
            else:
                total = total + nn.functional.conv_transpose2d(
                    old, layer.weight * share.t()[:, :, None, None], None, layer.stride, layer.padding
                )
        return total if layer.bias is None else total + layer.bias.view(-1, 1, 1)


class Net(nn.Module):
    """A grouped convolution, a recurrent convolution or none, a transposed one."""

    def __init__(self, recurrent):
        super().__init__()
        torch.manual_seed(3)
        options = {"beta": 0.8, "spike_grad": surrogate_spike, "threshold": 0.5}
        self.conv = nn.Conv2d(2, 4, 3, padding=1, groups=2, stride=1)
        if recurrent:
            self.lif = snn.RLeaky(conv2d_channels=4, kernel_size=3, **options)
        else:
            self.lif = snn.Leaky(**options)
        self.up = nn.ConvTranspose2d(4, 3, 2, stride=2)
        self.out = snn.Leaky(**options)
        self.recurrent = recurrent
        with torch.no_grad():  # loud enough to fire
            for p in self.parameters():
                p.mul_(5.0 if p.dim() > 1 else 1.0)

    def forward(self, x):
        spk, mem = self.lif.init_rleaky() if self.recurrent else (None, self.lif.init_leaky())
        last, out = self.out.init_leaky(), []
        for step in x:
            current = self.conv(step)
            spk, mem = self.lif(current, spk, mem) if self.recurrent else self.lif(current, mem)
            late, last = self.out(self.up(spk), last)
            out.append(late)
        return torch.stack(out)


def spikes(steps=9, batch=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 2 * (torch.rand(steps, batch, 2, 4, 4, generator=generator) < 0.5).double()


def names(recurrent):
    return ["conv", "up", *(["lif.recurrent"] if recurrent else [])]


@pytest.mark.parametrize("recurrent", [False, True], ids=["feed-forward", "recurrent"])
def test_a_wrapped_net_is_the_net_by_hand_with_its_gradients(recurrent):
    net, twin = Net(recurrent).double(), Net(recurrent).double()
    rules = {name: dk.FreeDelay("synaptic", max_delay=5, init="uniform") for name in names(recurrent)}
    dk.wrap_(net, rules, example=spikes(), generator=torch.Generator().manual_seed(1))
    hands = {}
    for name in names(recurrent):
        hands[name] = ByHand(twin.get_submodule(name), net.get_submodule(name).dk.delay.delays())
        parent, _, leaf = name.rpartition(".")
        setattr(twin.get_submodule(parent), leaf, hands[name])
    for batch, seed in ((2, 1), (2, 2), (3, 3)):  # a first, a repeated and a different batch
        for hand in hands.values():
            hand.past.clear()
        x = spikes(batch=batch, seed=seed)
        out, wanted = net(x), twin(x)
        assert 0.02 < float(wanted.detach().mean()) < 0.7 and torch.equal(out, wanted)
        net.zero_grad()
        twin.zero_grad()
        (out * x.sum()).sum().backward()
        (wanted * x.sum()).sum().backward()
        for name, hand in hands.items():
            layer, delay = net.get_submodule(name), net.get_submodule(name).dk.delay.delay
            assert bool(delay.grad.abs().max() > 0)
            torch.testing.assert_close(delay.grad, hand.delay.grad, rtol=1e-8, atol=1e-8)
            torch.testing.assert_close(layer.weight.grad, hand.layer.weight.grad, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("recurrent", [False, True], ids=["feed-forward", "recurrent"])
def test_zero_delays_change_no_bit_and_everything_comes_back(recurrent, tmp_path):
    net, x = Net(recurrent).double(), spikes()
    before, classes = net(x), [type(m) for m in net.modules()]
    dk.wrap_(net, dict.fromkeys(names(recurrent), dk.FreeDelay("synaptic", init=0)), example=x)
    assert torch.equal(net(x), before)
    net(x).sum().backward()
    assert all(bool(net.get_submodule(name).dk.delay.delay.grad.abs().max() > 0) for name in names(recurrent))
    dk.save(net, tmp_path / "pairs")
    assert torch.equal(dk.load(Net(recurrent).double(), tmp_path / "pairs")(x), before)
    dk.unwrap_(net)
    assert [type(m) for m in net.modules()] == classes and torch.equal(net(x), before)


@pytest.mark.parametrize(("package", "config", "options"), [
    ("delaykit_delrec", "DelRec", {"granularity": "synaptic", "max_delay": 6, "sigma": 2.0, "scale": 2.0}),
    ("delaykit_delrec", "DelRec", {"granularity": "hybrid", "max_delay": 6, "sigma": 0.0, "scale": 2.0}),
    ("delaykit_delrec", "DCLS", {"kernel_size": 9}),
])  # fmt: skip
def test_published_delays_fused_and_step_by_step(package, config, options):
    component = getattr(pytest.importorskip(package, reason="needs the plugin of the component"), config)(**options)
    net, x = Net(True).double(), spikes()
    rule = {"up": component, "lif.recurrent": component}
    dk.wrap_(net, rule, example=x, generator=torch.Generator().manual_seed(2))
    response = net.up.dk.delay.kernel().response(net.up.dk.delay.delays())
    assert response.shape[:2] == (3, 4)
    wanted = net(x)
    wanted.sum().backward()
    assert torch.equal(dk.fused(net, example=x)(x), wanted) and 0.0 < float(wanted.detach().mean()) < 0.8
    assert all(bool(net.get_submodule(name).dk.delay.delay.grad.abs().max() > 0) for name in rule)
    with dk.discretized(net):
        assert torch.isfinite(net(x)).all()


def test_a_sequence_in_one_call_and_truncated_steps():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(0, 1)).double()
    x = spikes()
    dk.wrap_(net, {"0": dk.At(dk.FreeDelay("synaptic", max_delay=4), time_dim=0, reset="root")})
    whole = net[0](x)
    layer = nn.Conv2d(2, 4, 3).double()
    layer.load_state_dict({k: v for k, v in net[0].state_dict().items() if "dk" not in k})
    hand = ByHand(layer, net[0].dk.delay.delays())
    torch.testing.assert_close(whole, torch.stack([hand(step) for step in x]), rtol=1e-9, atol=1e-9)
    stepped = nn.Sequential(layer)
    dk.wrap_(stepped, {"0": dk.At(dk.FreeDelay("synaptic", max_delay=4, init=net[0].dk.delay.delay), reset="manual")})
    found = []
    for number, step in enumerate(x):
        if number == 4:
            dk.detach(stepped)
        found.append(stepped(step))
    torch.testing.assert_close(torch.stack(found), whole, rtol=1e-6, atol=1e-6)  # init= holds float32 numbers
    torch.stack(found[4:]).sum().backward()
    stepped[0].weight.data.mul_(2)  # a weight that changes is read at the arrival
    dk.detach(stepped)
    assert not torch.equal(stepped(x[0]), found[-1])


def test_another_kernel_is_read_at_the_arrival():
    layer = nn.Conv1d(1, 1, 1, bias=False)
    net = dk.wrap_(nn.Sequential(layer), {"0": dk.At(dk.FreeDelay("synaptic", init=1), reset="manual")})
    with torch.no_grad():
        layer.weight.fill_(1.0)
        net(torch.ones(1, 1, 1))
        layer.weight.fill_(3.0)
        assert net(torch.zeros(1, 1, 1)).item() == 3.0


def test_a_convolution_with_a_forward_of_its_own_is_refused_and_an_axonal_delay_fits():
    class Doubled(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    net = nn.Sequential(Doubled(2, 4, 3), snn.Leaky(beta=0.9, init_hidden=True))
    x = torch.rand(1, 2, 5, 5)
    plan = dk.plan(net, {"0": dk.FreeDelay("synaptic")}, example=x)
    assert "a forward of its own" in str(plan.issues[0]) and "axonal" in plan.issues[0].fix
    assert not dk.plan(net, {"0": dk.FreeDelay("axonal")}, example=x).issues


def test_delays_of_another_shape_are_refused_by_name():
    delrec = pytest.importorskip("delaykit_delrec", reason="needs the plugin delaykit-delrec")
    net = nn.Sequential(nn.Conv2d(4, 4, 3, groups=2), snn.Leaky(beta=0.9, init_hidden=True))
    plan = dk.plan(net, {"0": delrec.DelRec("hybrid", max_delay=4)}, example=torch.rand(1, 4, 5, 5))
    assert "(4, 2)" in str(plan.issues[0])


def test_the_map_of_a_layer_is_the_layer():
    for layer in (nn.Conv2d(2, 4, 3, padding=1, padding_mode="reflect"), nn.ConvTranspose2d(2, 4, 3, stride=2)):
        x = torch.rand(2, 2, 5, 5)
        assert torch.equal(convolution_of(layer).whole(x, layer.bias), layer(x))


def test_a_sequence_in_pieces_is_the_whole_sequence():
    pytest.importorskip("norse", reason="needs Norse, the extra `norse`")
    import norse.torch as norse

    torch.manual_seed(0)
    net = norse.SequentialState(nn.Conv1d(2, 3, 3), norse.LIF())
    x = 9 * (torch.rand(12, 2, 6) < 0.5).float()  # a sequence without a batch, which the convolution takes for one
    dk.wrap_(net, {"0": dk.At(dk.FreeDelay("synaptic", max_delay=4), time_dim=0)}, example=x)
    whole, _ = net(x)
    first, state = net(x[:5])
    second, _ = net(x[5:], state)
    assert torch.equal(torch.cat([first, second]), whole) and 0.01 < float(whole.detach().mean()) < 0.9
