"""Everyday controls of a wrapped model: disabled, discretized, schedules, optimizers, status, DDP."""

from __future__ import annotations

import os
import subprocess
import sys

import hand
import pytest
import torch
from hand import HIDDEN, POST, PRE, spike
from torch import nn

import delaykit as dk

snn = pytest.importorskip("snntorch", reason="wraps snntorch models")


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.lif1 = nn.Linear(PRE, HIDDEN), snn.RLeaky(beta=0.8, linear_features=HIDDEN, spike_grad=spike)
        self.fc2, self.lif2 = nn.Linear(HIDDEN, POST), snn.Leaky(beta=0.8, spike_grad=spike)

    def forward(self, x):
        (spk1, mem1), mem2, out = self.lif1.reset_mem(), self.lif2.reset_mem(), []
        for step in x:
            spk1, mem1 = self.lif1(self.fc1(step), spk1, mem1)
            _, mem2 = self.lif2(self.fc2(spk1), mem2)
            out.append(mem2)
        return torch.stack(out)


RULES = {
    "fc1": dk.FreeDelay("axonal", max_delay=9, init=[0.4, 1.6, 2.5, 3.2, 4.9]),
    "fc2": dk.FreeDelay("synaptic", max_delay=9, init=2.3, kernel="triangle", spread=2.0, spread_decay=0.95),
    "lif1.recurrent": dk.FreeDelay("layer", max_delay=9, init=1.4, learn=False),
}


def lively():
    net, x = Net().double(), hand.spikes_in(rate=0.5)
    hand.make_lively_(net, lambda n, d: n(d), x, {}, optional=("lif2",))
    return net, x


def delayed():
    net, x = lively()
    return dk.wrap_(net, RULES, example=x), x


def extras(net):
    return {k: v.detach().clone() for k, v in net.state_dict().items() if ".dk." in k}


def test_disabled_is_the_bare_model():
    net, x = lively()
    bare = net(x)
    dk.wrap_(net, RULES, example=x)
    late = net(x)
    assert not torch.equal(late, bare)
    with dk.disabled(net):
        torch.testing.assert_close(net(x), bare, rtol=0, atol=0)
        with dk.disabled(net):
            pass
        torch.testing.assert_close(net(x), bare, rtol=0, atol=0)
    torch.testing.assert_close(net(x), late, rtol=0, atol=0)
    with pytest.raises(ZeroDivisionError), dk.disabled(net):
        raise ZeroDivisionError
    torch.testing.assert_close(net(x), late, rtol=0, atol=0)


def test_discretized_equals_a_model_with_rounded_delays():
    net, x = delayed()
    late, before = net(x), extras(net)
    rounded = {"fc1": [0, 2, 2, 3, 5], "fc2": 2, "lif1.recurrent": 1}
    other, _ = lively()
    rules = {k: dk.FreeDelay(RULES[k].granularity, max_delay=9, init=v) for k, v in rounded.items()}
    dk.wrap_(other, rules, example=x)
    with dk.discretized(net):
        torch.testing.assert_close(net(x), other(x), rtol=1e-12, atol=1e-12)
    assert all(torch.equal(before[k], v) for k, v in extras(net).items())
    torch.testing.assert_close(net(x), late, rtol=0, atol=0)
    with pytest.raises(ZeroDivisionError), dk.discretized(net):
        raise ZeroDivisionError
    assert all(torch.equal(before[k], v) for k, v in extras(net).items())
    dk.finalize_(net)
    torch.testing.assert_close(net(x), other(x), rtol=1e-12, atol=1e-12)


def test_advance_follows_the_schedule():
    net, _ = delayed()
    for progress in (0.0, 0.25, 1.0):
        assert dk.advance_(net, progress) == {}
        assert float(net.fc2.dk.delay.spread) == pytest.approx(2.0 * 0.95 ** (100 * progress))
    for progress in (-0.1, 1.5, float("nan")):
        with pytest.raises(dk.ConfigError, match="epochs"):
            dk.advance_(net, progress)


def test_a_new_spread_counts_from_the_next_sequence():
    net, x = delayed()
    wide = net(x)
    dk.advance_(net, 1.0)
    narrow = net(x)
    assert not torch.allclose(wide, narrow)
    dk.advance_(net, 0.0)
    torch.testing.assert_close(net(x), wide, rtol=0, atol=0)


def test_param_groups_hold_every_trainable_parameter_once():
    net, _ = delayed()
    groups = dk.param_groups(net, lr=1e-3, delay_lr=0.5, weight_decay=0.1, betas=(0.8, 0.9))
    ids = [id(p) for g in groups for p in g["params"]]
    assert sorted(ids) == sorted(id(p) for p in net.parameters() if p.requires_grad)
    assert [g["weight_decay"] for g in groups] == [0.1, 0.0] and [g["lr"] for g in groups] == [1e-3, 0.5]
    assert {id(p) for p in groups[1]["params"]} == {id(net.fc1.dk.delay.delay), id(net.fc2.dk.delay.delay)}
    torch.optim.AdamW(groups)
    for bad in ({"lr": 0.0}, {"lr": float("nan")}, {"lr": 1e-3, "delay_lr": -1.0}):
        with pytest.raises(dk.ConfigError):
            dk.param_groups(net, **bad)


def test_attach_projects_and_misses_nothing():
    net, x = delayed()
    partial = torch.optim.SGD(net.fc1.parameters(), lr=1.0)
    with pytest.raises(dk.TrainingError) as caught:
        dk.attach(partial, net)
    assert "fc2.dk.delay.delay" in str(caught.value) and "param_groups" in str(caught.value)
    optimizer = torch.optim.SGD(dk.param_groups(net, lr=1e-3, delay_lr=1e4))
    handle = dk.attach(optimizer, net)
    for _ in range(2):
        optimizer.zero_grad()
        net(x).square().sum().backward()
        optimizer.step()
        delays = torch.cat([site.dk.delay.delay.detach().flatten() for site in (net.fc1, net.fc2)])
        assert float(delays.min()) >= 0 and float(delays.max()) <= 9
    assert bool(((delays == 0) | (delays == 9)).any())  # the rate is absurd, so the bounds were met
    handle.remove()
    net(x).square().sum().backward()
    optimizer.step()
    with pytest.raises(dk.DelayRangeError, match="attach"):
        for _ in range(3):
            net(x).square().sum().backward()
            optimizer.step()


def test_learning_moves_delays_where_the_loss_wants_them():
    """A teacher with late inputs is imitated: its delays are found by gradient descent alone."""
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Linear(PRE, POST, bias=False))
    student = nn.Sequential(nn.Linear(PRE, POST, bias=False))
    student.load_state_dict(teacher.state_dict())
    target = torch.tensor([3.0, 2.2, 4.0, 1.5, 3.3])
    for net, init in ((teacher, target.tolist()), (student, (target - 0.9).tolist())):
        rule = dk.At(dk.FreeDelay("axonal", max_delay=9, init=init), time_dim=0)
        dk.wrap_(net, {"0": rule})
    x = hand.spikes_in(60, 8, rate=0.2).float().cumsum(0).sin()  # smooth inputs: the loss is smooth in the delay
    optimizer = torch.optim.Adam([student[0].dk.delay.delay], lr=0.05)
    dk.attach(optimizer, student)
    for _ in range(150):
        optimizer.zero_grad()
        (student(x) - teacher(x).detach()).square().mean().backward()
        optimizer.step()
    assert float((student[0].dk.delay.delay.detach() - target).abs().max()) < 0.1


def test_status_tells_what_is_there():
    net, _ = delayed()
    text = str(dk.status(net))
    for word in ("fc1", "lif1.recurrent", "axonal", "synaptic", "learned", "fixed", "root", "1.00"):
        assert word in text, text
    assert {s.name: s.trainable for s in dk.status(net).sites} == {"fc1": 5, "fc2": HIDDEN * POST, "lif1.recurrent": 0}
    assert "axonal delays 0.4..4.9 steps" in repr(net)


def test_manual_reset_begins_a_sequence():
    linear = nn.Sequential(nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        linear[0].weight.copy_(torch.eye(2))
    dk.wrap_(linear, {"0": dk.At(dk.FreeDelay("layer", init=1), reset="manual")})
    one, zero = torch.ones(1, 2), torch.zeros(1, 2)
    assert linear(one).sum() == 0 and linear(zero).sum() == 2
    linear(one)
    dk.reset(linear)
    assert linear(zero).sum() == 0
    linear(one)
    with pytest.raises(dk.HistoryError, match="a batch of 1"):
        linear(torch.zeros(3, 2))  # nobody said that this is another sequence
    with pytest.raises(dk.HistoryError, match=r"\(1, 2\) torch.float64 on cpu .* a batch of 1 torch.float32 on cpu"):
        linear.double()(zero.double())
    linear.float()
    dk.reset(linear)
    assert linear(torch.zeros(3, 2)).sum() == 0


def test_detach_keeps_the_spikes_and_cuts_the_graph():
    linear = nn.Sequential(nn.Linear(2, 2, bias=False))
    dk.wrap_(linear, {"0": dk.At(dk.FreeDelay("layer", init=1), reset="manual")})
    x = torch.ones(1, 2, requires_grad=True)
    linear(x)
    dk.detach(linear)
    late = linear(torch.zeros(1, 2))
    torch.testing.assert_close(late, linear[0].weight.sum(1)[None])
    late.sum().backward()
    assert x.grad is None or not x.grad.any()


def test_training_continues_after_a_cut_off_forward():
    """An exception inside the loop leaves no stale history behind."""
    net, x = delayed()
    want = net(x)
    broken = [*x[:5], torch.zeros(hand.BATCH, PRE + 1).double()]
    with pytest.raises(dk.ShapeError):
        net(broken)
    torch.testing.assert_close(net(x), want, rtol=0, atol=0)


def test_no_grad_and_eval_give_the_same_numbers():
    net, x = delayed()
    want = net(x)
    with torch.no_grad():
        torch.testing.assert_close(net(x), want, rtol=0, atol=0)
    with torch.inference_mode():
        torch.testing.assert_close(net(x), want, rtol=0, atol=0)
    net.eval()
    torch.testing.assert_close(net(x), want, rtol=0, atol=0)
    net(x).sum().backward()
    assert bool(net.fc1.dk.delay.delay.grad.any())


WORKER = """
import os, sys, torch, torch.distributed as dist
sys.path[:0] = sys.argv[2].split(os.pathsep)
import test_controls as t, delaykit as dk, hand
torch.set_num_threads(1)
rank, path = int(sys.argv[1]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{path}/meet", rank=rank, world_size=2)
net, x = t.delayed()
x = hand.spikes_in(batch=4, rate=0.5)
model = torch.nn.parallel.DistributedDataParallel(net)
optimizer = torch.optim.SGD(dk.param_groups(net, lr=1e-2))
dk.attach(optimizer, net)
for _ in range(2):
    optimizer.zero_grad()
    model(x[:, 2 * rank:2 * rank + 2]).square().mean().backward()
    optimizer.step()
if rank == 0:
    torch.save(net.state_dict(), f"{path}/after.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow  # the law of this name shows it for one component in the fast set
def test_two_processes_equal_one(tmp_path):
    from pathlib import Path

    command = [sys.executable, "-c", WORKER]
    here = Path(__file__).parent
    folders = os.pathsep.join(map(str, (here, here.parent / "networks")))
    workers = [subprocess.Popen([*command, str(rank), folders, str(tmp_path)]) for rank in range(2)]
    assert [w.wait(timeout=100) for w in workers] == [0, 0]
    net, _ = delayed()
    x = hand.spikes_in(batch=4, rate=0.5)
    optimizer = torch.optim.SGD(dk.param_groups(net, lr=1e-2))
    dk.attach(optimizer, net)
    for _ in range(2):
        optimizer.zero_grad()
        net(x).square().mean().backward()
        optimizer.step()
    after = torch.load(tmp_path / "after.pt")
    for key, value in net.state_dict().items():
        torch.testing.assert_close(after[key], value, rtol=1e-9, atol=1e-9)


def test_delays_that_a_discretized_block_would_take_back_are_told(tmp_path):
    net = dk.wrap_(nn.Sequential(nn.Linear(2, 2)), {"0": dk.At(dk.FreeDelay("axonal", init=3.3), reset="manual")})
    dk.save(net, tmp_path / "d")
    other = dk.wrap_(nn.Sequential(nn.Linear(2, 2)), {"0": dk.At(dk.FreeDelay("axonal", init=1.7), reset="manual")})
    with pytest.raises(dk.ConfigError, match="delays of 0 loaded or trained inside"), dk.discretized(other):
        dk.load(other, tmp_path / "d")
    assert dk.status(other).delays["0"].tolist() == [[pytest.approx(1.7)] * 2]
    with dk.discretized(other):
        other(torch.ones(1, 2)).sum().backward()
    with pytest.raises(ZeroDivisionError), dk.discretized(other):  # what is raised inside comes through
        dk.load(other, tmp_path / "d")
        raise ZeroDivisionError
