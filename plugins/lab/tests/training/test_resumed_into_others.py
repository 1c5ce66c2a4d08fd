"""A run goes on as what it was: other components, another optimizer, other rates or data are refused, by name."""

from __future__ import annotations

import copy
import os

import numpy as np
import pytest
import torch
from torch import nn

import delaykit as dk
from delaykit.testing.messages import check_told
from delaykit_lab import DelayTraining, FitConfig, Frames, Resumable, Splits, fit
from delaykit_lab.training.checkpoint import load_run, saved_history

SPIKES = (torch.rand(6, 16, 4, generator=torch.Generator().manual_seed(0)) < 0.4).to(torch.uint8)
FRAMES = Frames(SPIKES, torch.arange(16) % 2)
SPLITS = Splits(FRAMES, FRAMES, FRAMES)
CONFIG = FitConfig(epochs=4, batch_size=8)


class Net(nn.Module):
    """A square connection, and a readout of what came through it."""

    def __init__(self, config=None, hidden=4):
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.out = nn.Linear(4, hidden), nn.Linear(hidden, 2)
        if config is not None:
            dk.wrap_(self, {"fc": config}, example=SPIKES[:, :2].float())

    def forward(self, x):
        return sum(self.out(self.fc(step).relu()) for step in x)


AXONAL = dk.FreeDelay("axonal", max_delay=4)


def adam(net, lr=1e-3, **options):
    return torch.optim.Adam(net.parameters(), lr=lr, **options)


def trained(path, net=None, make=adam, epochs=2, best=None, key="acc", value=float):
    net = Net(AXONAL) if net is None else net
    optimizer, order = make(net), torch.Generator().manual_seed(0)
    training = Resumable(path, net, optimizer, order, {"seed": 0}, best=best)
    for epoch in training.epochs(epochs):
        optimizer.zero_grad()
        net(SPIKES.float()).square().mean().backward()
        optimizer.step()
        training.history.append({key: value(epoch)})
    return training


OTHERS = {
    "dendritic": (lambda: Net(dk.FreeDelay("dendritic", max_delay=4)), adam, ["axonal", "dendritic", "fc"]),
    "a smaller range": (lambda: Net(dk.FreeDelay("axonal", max_delay=3)), adam, ["max_delay=4", "max_delay=3"]),
    "bare": (Net, adam, ["components of fc"]),
    "momentum": (lambda: Net(AXONAL), lambda net: torch.optim.SGD(net.parameters(), 0.1), ["Adam", "SGD"]),
    "other options": (lambda: Net(AXONAL), lambda net: adam(net, betas=(0.5, 0.9)), ["betas", "0.5"]),
    "wider": (lambda: Net(AXONAL, hidden=6), adam, ["does not fit"]),
}


@pytest.mark.parametrize("other", OTHERS)
def test_another_net_or_optimizer_is_refused_and_left_as_it_was(other, tmp_path):
    trained(tmp_path / "run")
    build, make, words = OTHERS[other]
    net = build()
    optimizer = make(net)
    before = copy.deepcopy(net.state_dict())
    told = str(check_told(lambda: Resumable(tmp_path / "run", net, optimizer, torch.Generator(), {"seed": 0})))
    assert all(word in told for word in words), told
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not optimizer.state


def test_another_start_and_another_rate_go_on(tmp_path):
    trained(tmp_path / "run")
    later = trained(tmp_path / "run", Net(dk.FreeDelay("axonal", max_delay=4, init=1.0)), lambda net: adam(net, 0.5), 3)
    assert len(later.history) == 3


def test_runs_whose_names_differ_behind_a_dot_keep_their_best_apart(tmp_path):
    one = trained(tmp_path / "lr0.1", Net(AXONAL), lambda net: adam(net, 0.1), best="acc")
    two = trained(tmp_path / "lr0.2", Net(AXONAL), lambda net: adam(net, 0.2), best="acc")
    for training in (one, two):
        wanted = copy.deepcopy(training.net.state_dict())
        with torch.no_grad():
            training.net.fc.weight.zero_()
        training.restore_best()
        assert all(torch.equal(value, wanted[name]) for name, value in training.net.state_dict().items())


def test_the_best_of_another_run_is_refused_and_that_of_before_is_found(tmp_path):
    one = trained(tmp_path / "run.pt", best="acc")
    other = trained(tmp_path / "other", best="acc")
    os.replace(tmp_path / "run.pt.best", tmp_path / "run.best")  # where earlier versions wrote it
    one.restore_best()
    os.replace(tmp_path / "other.best", tmp_path / "run.pt.best")
    assert "another run" in str(check_told(one.restore_best))
    assert other.history[0]["cpu_s"] != one.history[0]["cpu_s"]


def test_nan_is_never_the_best(tmp_path):
    values = [float("nan"), 1.5, float("nan"), 2.5, 2.0]
    training = trained(tmp_path / "run", best="acc", epochs=5, value=lambda epoch: values[epoch])
    load_run(tmp_path / "run.best", training.net, training.optimizer, training.order, {"seed": 0})
    training.restore_best()
    assert len(saved_history(tmp_path / "run.best")) == 4


def test_numbers_of_numpy_and_torch_become_plain_ones(tmp_path):
    for name, value in (("a", lambda _: torch.tensor(0.5)), ("b", lambda _: np.float32(0.5))):
        assert trained(tmp_path / name, best="acc", value=value).history[0]["acc"] == 0.5


WRONG = {
    "record": lambda path: trained(path, value=lambda _: {1, 2}),
    "no dict": lambda path: trained(path, value=lambda _: object()),
    "best": lambda path: trained(path, best="accc"),
    "config": lambda path: Resumable(path, (net := Net()), adam(net), torch.Generator(), {"data": {1, 2}}),
    "folder": lambda path: trained(path.parent),
    "unwritable": lambda path: trained("/dev/null/run"),
    "half a character": lambda path: trained("a\ud800"),
    "fit unwritable": lambda path: fit(net := Net(), SPLITS, adam(net), CONFIG, checkpoint="/dev/null/run"),
    "fit device": lambda path: fit(net := Net(), SPLITS, adam(net), CONFIG, device="foo"),
    "fit labels": lambda path: fit(
        net := Net(), Splits(Frames(SPIKES, torch.full((16,), -1)), FRAMES, FRAMES), adam(net), CONFIG
    ),
    "fit no steps": lambda path: fit(net := Net(), Splits(Frames(SPIKES[:0], FRAMES.labels), FRAMES, FRAMES),
                                     adam(net), CONFIG),
    "fit no samples": lambda path: fit(net := Net(), Splits(FRAMES.subset(torch.arange(0)), FRAMES, FRAMES), adam(net),
                                       CONFIG),
    "fit nan": lambda path: fit(net := Net(), Splits(Frames(SPIKES / 0.0, FRAMES.labels), FRAMES, FRAMES), adam(net),
                                CONFIG),
    "fit identity": lambda path: fit(net := Net(), SPLITS, adam(net), CONFIG, identity={"a": {1}}),
    "fit splits": lambda path: fit(net := Net(), (FRAMES, FRAMES, FRAMES), adam(net), CONFIG),
    "fit optimizer": lambda path: fit(Net(), SPLITS, None, CONFIG),
    "bare without a name": lambda path: DelayTraining(net := Net(), adam(net)).save("."),
    "bare nowhere": lambda path: DelayTraining(net := Net(), adam(net)).load(""),
    "float labels": lambda path: Frames(SPIKES, FRAMES.labels.float()),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_go_well_is_told_in_full(wrong, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check_told(lambda: WRONG[wrong](tmp_path / "run"))


def test_an_interrupted_fit_is_called_again_with_the_same_optimizer(tmp_path):
    whole = Net(AXONAL)
    wanted = fit(whole, SPLITS, adam(whole), CONFIG)
    net = Net(AXONAL)
    optimizer = adam(net)

    def stop(record):
        if record.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(net, SPLITS, optimizer, CONFIG, checkpoint=tmp_path / "run", on_epoch=stop)
    assert fit(net, SPLITS, optimizer, CONFIG, checkpoint=tmp_path / "run") == wanted
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in whole.state_dict().items())
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_a_finished_fit_is_not_handed_out_for_another(tmp_path):
    net = Net(AXONAL)
    fit(net, SPLITS, adam(net), CONFIG, checkpoint=tmp_path / "run")
    fewer = Splits(FRAMES.subset(torch.arange(8)), FRAMES, FRAMES)
    other = Net(dk.FreeDelay("dendritic", max_delay=4))
    for model, splits, lr, word in ((net, SPLITS, 9.0, "rates"), (net, fewer, 1e-3, "splits"),
                                    (other, SPLITS, 1e-3, "dendritic")):  # fmt: skip
        told = check_told(lambda m=model, s=splits, r=lr: fit(m, s, adam(m, r), CONFIG, checkpoint=tmp_path / "run"))
        assert word in str(told)


def test_gradients_are_left_as_they_are_on_wish():
    net = Net()
    assert len(fit(net, SPLITS, adam(net), FitConfig(epochs=1, clip=None))) == 1


def test_a_refused_model_file_leaves_the_model_as_it_was(tmp_path):
    net, wider = Net(), Net(hidden=6)
    DelayTraining(net, adam(net)).save(tmp_path / "d")
    before = copy.deepcopy(wider.state_dict())
    check_told(lambda: DelayTraining(wider, adam(wider)).load(tmp_path / "d"))
    assert all(torch.equal(value, before[name]) for name, value in wider.state_dict().items())
