"""What a training does between and within sequences: parameters after it are those of a net with queues."""

from __future__ import annotations

import copy

import pytest
import torch
from queues import MAKES, PAIRS, Run, assert_agree, frames, loss_of, pair, pickled

import delaykit as dk

EVERY = [pytest.mark.parametrize("granularities", PAIRS, ids="-".join), pytest.mark.parametrize("kind", MAKES)]
SEQUENCES = [frames(k, batch=3 + k % 2) for k in range(3)]
STEPPED = ["follow", "carried"]


def every(test):
    for mark in EVERY:
        test = mark(test)
    return test


@pytest.fixture(autouse=True)
def quiet(recwarn):
    """Let one rate serve weights and delays."""


@every
def test_validation_of_another_batch_between_two_updates(kind, granularities):
    net, twin = pair(kind, granularities)
    for k, x in enumerate(SEQUENCES):
        net.train([x]), twin.train([x])
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                net.net.eval(), twin.net.eval()
                seen = [run(frames(60 + k, batch=7, steps=6)) for run in (net, twin)]
                net.net.train(), twin.net.train()
                torch.testing.assert_close(*seen)
    assert_agree(net, twin)


@every
def test_gradients_accumulated_over_two_sequences(kind, granularities):
    net, twin = pair(kind, granularities)
    for run in (net, twin):
        for x in SEQUENCES[:2]:
            (loss_of(run(x)) / 2).backward()
        run.learn()
    assert_agree(net, twin)


@every
def test_a_step_that_fails_and_the_next_sequence(kind, granularities):
    """The neuron raises in mid-sequence; whatever was under way is gone with that sequence."""
    net, twin = pair(kind, granularities)

    def fail(*_):
        seen.append(1)
        if len(seen) == 5:
            raise problem

    neuron = net.net.get_submodule({"root": "neurons.1", "follow": "3", "carried": "3"}[kind])
    for problem, x in zip((ValueError(), KeyboardInterrupt()), SEQUENCES, strict=False):
        seen = []
        handle = neuron.register_forward_pre_hook(fail)
        with pytest.raises(type(problem)):
            net(frames(50))
        handle.remove()
        net.train([x]), twin.train([x])
    assert_agree(net, twin)


@every
def test_a_copy_in_mid_training_goes_on_by_itself(kind, granularities):
    net, twin = pair(kind, granularities)
    net.train(SEQUENCES[:1]), twin.train(SEQUENCES[:1])
    for neuron in net.net.modules():
        getattr(neuron, "reset_mem", lambda: None)()  # torch copies no tensor that has a graph
    other = Run(kind, copy.deepcopy(net.net)).train(SEQUENCES[1:])
    net.train(SEQUENCES[1:]), twin.train(SEQUENCES[1:])
    assert_agree(net, twin), assert_agree(other, twin)


@every
def test_an_average_of_models_is_one_of_the_delays_too(kind, granularities):
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    net, twin = pair(kind, granularities)
    averages = [AveragedModel(run.net, multi_avg_fn=get_ema_multi_avg_fn(0.5)) for run in (net, twin)]
    runs = [Run(kind, averages[0].module), Run(kind, averages[1].module, queued=True)]
    with torch.no_grad():
        for run in (net, twin, *runs):
            run(frames(5))  # membranes of one batch: the library's buffers are copied, too
    for k in range(3):
        for run, average in zip((net, twin), averages, strict=True):
            run.train([frames(k)])
            average.update_parameters(run.net)
        with torch.no_grad():
            torch.testing.assert_close(*[run(frames(70 + k)) for run in runs])
    assert_agree(net, twin), assert_agree(*runs)


@pytest.mark.parametrize("act", ["eval", "save", "look"])
@pytest.mark.parametrize("granularities", PAIRS, ids="-".join)
@pytest.mark.parametrize("kind", STEPPED)
def test_what_is_done_to_a_net_in_mid_sequence_leaves_spikes_under_way(kind, granularities, act):
    net, twin = pair(kind, granularities)
    seen = []
    for run in (net, twin):
        run.begin()
        out = []
        for t, x in enumerate(SEQUENCES[0]):
            if act == "eval":
                run.net.train(not 3 <= t < 6)
            elif t == 4 and not run.queued:
                twice = pickled(run.net) if act == "save" else copy.deepcopy(run.net.state_dict())
            out.append(run.step(x))
        seen.append(torch.stack(out))
        loss_of(seen[-1]).backward()
        run.learn()
    torch.testing.assert_close(*seen)
    assert_agree(net, twin)
    if act == "save" and twice is not None:
        with torch.no_grad():
            assert torch.isfinite(Run(kind, twice)(SEQUENCES[1])).all()


@pytest.mark.parametrize("granularities", PAIRS, ids="-".join)
@pytest.mark.parametrize("kind", STEPPED)
def test_truncated_backpropagation_with_an_update_at_every_cut(kind, granularities):
    def train(run, x):
        for part in x.split(4):
            loss_of(torch.stack([run.step(frame) for frame in part])).backward()
            run.learn()
            run.cut()

    trained_alike(kind, granularities, train)


@pytest.mark.parametrize("granularities", PAIRS, ids="-".join)
@pytest.mark.parametrize("kind", STEPPED)
def test_steps_without_gradients_before_those_that_learn(kind, granularities):
    def train(run, x):
        with torch.no_grad():
            for frame in x[:4]:
                run.step(frame)
        loss_of(torch.stack([run.step(frame) for frame in x[4:]])).backward()
        run.learn()

    trained_alike(kind, granularities, train)


def trained_alike(kind, granularities, train):
    net, twin = pair(kind, granularities)
    for run in (net, twin):
        for x in SEQUENCES[:2]:
            run.begin()
            train(run, x)
    assert_agree(net, twin)


@pytest.mark.parametrize("kind", STEPPED)
def test_a_net_that_changes_its_precision_in_mid_sequence_is_refused(kind):
    net, _ = pair(kind, PAIRS[0])
    with torch.no_grad():
        for x in SEQUENCES[0][:4]:
            net.step(x)
        net.net.float()
        net.state = torch.utils._pytree.tree_map(lambda v: v.float() if torch.is_tensor(v) else v, net.state)
        with pytest.raises(dk.HistoryError, match="float64 on cpu are under way"):
            net.step(SEQUENCES[0][4].float())


@every
@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_is_refused(kind, granularities, reentrant):
    net, _ = pair(kind, granularities)
    from torch.utils.checkpoint import checkpoint

    out = checkpoint(net, frames(0).requires_grad_(), use_reentrant=reentrant)
    with pytest.raises(dk.HistoryError, match="activation checkpointing"):
        loss_of(out).backward()
    net.optimizer.zero_grad()
    with torch.no_grad():
        assert torch.isfinite(net(frames(1))).all()


@every
def test_functional_calls_with_other_parameters(kind, granularities):
    runs, seen, gradients = pair(kind, granularities), [], []

    class Whole(torch.nn.Module):
        def __init__(self, run):
            super().__init__()
            self.net, self.run = run.net, run

        def forward(self, x):
            return self.run(x)

    for run in runs:
        other = {f"net.{n}": (0.9 * p.detach()).requires_grad_() for n, p in run.net.named_parameters()}
        seen.append(torch.func.functional_call(Whole(run), other, (frames(0),)))
        found = torch.autograd.grad(loss_of(seen[-1]), list(other.values()))
        gradients.append({n.replace("dk.delay.", ""): g.flatten() for n, g in zip(other, found, strict=True)})
    torch.testing.assert_close(*seen)
    torch.testing.assert_close(gradients[0], gradients[1])
    runs[0].train(SEQUENCES[:1]), runs[1].train(SEQUENCES[:1])
    assert_agree(*runs)
