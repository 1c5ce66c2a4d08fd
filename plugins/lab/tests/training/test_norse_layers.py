"""``--model norse:16,8`` is Norse's network: cells step by step, with and without delays, trained and resumed."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from click.testing import CliRunner

import delaykit as dk
from delaykit_lab import Comparison, Job, train_job
from delaykit_lab.commands.train import train
from delaykit_lab.comparison.budget import search_widths
from delaykit_lab.comparison.rows import Row
from delaykit_lab.methods import apply_
from delaykit_lab.models.networks import ModelSpec
from delaykit_lab.models.norse_layers import NorseLayers
from delaykit_lab.training.costs import costs

pytest.importorskip("norse", reason="needs Norse, the extra `norse`")
SMALL = {"samples": 96, "held": 48}
SPIKES = (torch.rand(14, 3, 6, generator=torch.Generator().manual_seed(0)) < 0.4).float()


def small_net(*methods: str) -> NorseLayers:
    torch.manual_seed(0)
    net = NorseLayers(6, (7, 5), 3)
    words = [Job("moving-wave", "norse:7,5", (word,)).parsed()[0] for word in methods]
    return apply_(net, words, SPIKES[:, :2], 0)


def by_hand(net, spikes):
    """Loop over time as a user of Norse does, all layers at each step."""
    states, found = [None] * net.depth, []
    for now in spikes:
        for k in range(net.depth):
            now, states[k] = net.get_submodule(f"lif{k + 1}")(now, states[k])
        found.append(now)
    return torch.stack(found)


def test_a_layer_is_norse_s_cell_step_by_step():
    net = small_net()
    fired = by_hand(net, SPIKES)
    assert 10 < fired.sum() < 150 and torch.equal(net.layers(SPIKES)[-1], fired)
    assert torch.allclose(net(SPIKES), net.out(fired.sum(0)))
    assert all(not torch.diag(cell.recurrent_weights).any() for cell in (net.lif1, net.lif2))


def test_beta_is_the_decay_of_the_membrane_and_synapses_forget_at_once():
    net = NorseLayers(2, (1,), 2, beta=0.8)
    with torch.no_grad():
        net.lif1.input_weights.fill_(0.5)  # below threshold
    _, state = net.lif1(torch.ones(1, 2), None)
    membranes = []
    for _ in range(3):
        _, state = net.lif1(torch.zeros(1, 2), state)
        membranes.append(state.v.item())
    assert membranes == pytest.approx([0.16, 0.128, 0.1024])


def test_whole_delays_on_both_places_are_the_hand_s_shift():
    net = small_net("free:layer,init=2,learn=false@*.input", "free:layer,init=1,learn=false@*.recurrent")
    bare, late = small_net(), [torch.zeros(3, 7) for _ in range(2)]
    shifted, states, fired = torch.cat([torch.zeros(2, 3, 6), SPIKES[:-2]]), None, []
    cell, before = bare.lif1, torch.zeros(3, 7)
    for now in shifted:  # the recurrent spike arrives one step later than Norse's own
        late = [before, late[0]]
        before, states = cell(now, None if states is None else states._replace(z=late[1]))
        fired.append(before)
    fired = torch.stack(fired)
    assert fired.sum() > 10 and torch.equal(net.layers(SPIKES)[1], fired)
    assert not torch.equal(net.layers(SPIKES)[1], bare.layers(SPIKES)[1])


def test_synaptic_operations_are_counted_one_by_one():
    net = small_net()
    layers = [layer.detach() for layer in net.layers(SPIKES)]
    fan = [(7,), (6, 5), (4, 3)]  # of a spike of the input and each layer: next layer, and recurrent without itself
    wanted = float(layers[0].sum()) * 7
    for k in (1, 2):
        recurrent, forward = fan[k]
        wanted += float(layers[k].sum()) * forward + float(layers[k][:-1].sum()) * recurrent
    found = costs(net, SPIKES)
    assert found.synaptic_operations == pytest.approx(wanted / 3) and wanted > 100


def test_the_command_trains_it_and_a_killed_run_goes_on_to_the_same_numbers(tmp_path):
    words = ["--task", "moving-wave", "--set", "samples=96", "--set", "held=48", "--model", "norse:6", "--with",
             "delrec:axonal,max_delay=9", "--with", "free:axonal,max_delay=9@*.input", "--rounding",
             "straight-through", "--epochs", "3", "--device", "cpu"]  # fmt: skip
    done = CliRunner().invoke(train, [*words, "--out", str(tmp_path / "r")])
    assert done.exit_code == 0, done.output
    [run] = json.loads((tmp_path / "r" / "results.json").read_text())["runs"]
    assert sorted(run["delays"]["after"]) == ["lif1.input", "lif1.recurrent"] and run["job"]["model"] == "norse:6"
    job, state = Job.from_json(run["job"]), tmp_path / "s.safetensors"

    def kill(record):
        if record["epoch"] == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train_job(job, state=state, watch=kill)
    again = train_job(job, state=state).record
    for one, other in zip(run["history"], again["history"], strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


def test_rows_of_a_comparison_have_both_places():
    row = Row.parse("both", ModelSpec.parse("norse:6"), 12)
    assert (row.recurrent, row.forward) == ("learned", "learned")
    assert Row.parse("free:axonal@*.input", ModelSpec.parse("norse:6"), 12).recurrent == "none"
    comparison = Comparison("moving-wave", ("none", "wider", "both"), SMALL, model="norse:6", max_delay=9)
    task = comparison.job(comparison.rows()[0], (6,), 0.01, 0).make_task()
    sizes, budget = search_widths(comparison, task, task.splits(0))
    assert sizes["none"] == sizes["both"] == (6,) and sizes["wider"][0] > 6 and budget is not None


def test_other_neurons_and_a_machine_without_norse_are_sentences(monkeypatch):
    with pytest.raises(dk.ConfigError, match=r"neuron=adaptive.*use rsnn: or snn:"):
        ModelSpec.parse("norse:4,neuron=adaptive")
    monkeypatch.setitem(sys.modules, "norse.torch", None)
    with pytest.raises(dk.ConfigError, match=r"no Norse.*pip install delaykit-lab\[norse\]"):
        ModelSpec.parse("norse:4").build(Job("moving-wave", "norse:4").make_task(), 0)
