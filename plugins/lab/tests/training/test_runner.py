"""Training is seeded, resumes to the bit, fails early, and leaves test data and global state alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import delaykit as dk
from delaykit import CheckpointError, ConfigError, ShapeError, TrainingError
from delaykit_lab import FitConfig, Frames, Splits, fit, predict
from delaykit_lab.training.runner import accuracy, choose_device


class Counts(nn.Module):
    """Reads the spike counts of each channel; dropout makes the training mode visible."""

    def __init__(self, channels=6, classes=3):
        super().__init__()
        self.fc = nn.Linear(channels, classes)

    def forward(self, spikes):
        return self.fc(spikes.sum(dim=0))


class Late(nn.Module):
    """Scores of a sequence whose last steps count more, so that delays matter."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 3)

    def forward(self, spikes):
        return (self.fc(spikes) * torch.linspace(0, 1, len(spikes)).reshape(-1, 1, 1)).mean(0)


def easy(samples=30, seed=0):
    """The class is the channel that spikes most."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(samples) % 3
    rate = 0.1 + 0.6 * nn.functional.one_hot(labels, 6)
    return Frames((torch.rand(20, samples, 6, generator=generator) < rate).to(torch.uint8), labels)


def splits():
    return Splits(easy(seed=0), easy(seed=1), easy(seed=2))


def trained(epochs=6, checkpoint=None, stop_after=None, **options):
    torch.manual_seed(0)
    net = Counts()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.05)

    class Stop(Exception):
        pass

    def on_epoch(record):
        if record.epoch == stop_after:
            raise Stop

    config = FitConfig(epochs=epochs, batch_size=8, seed=3)
    try:
        history = fit(net, splits(), optimizer, config, on_epoch=on_epoch, checkpoint=checkpoint, **options)
    except Stop:
        history = None
    return net, history


def test_it_learns():
    net, history = trained()
    assert history[-1].train_loss < 0.5 * history[0].train_loss
    assert accuracy(predict(net, splits().test), splits().test) > 0.9


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(tmp_path):
    whole, history = trained()
    trained(checkpoint=tmp_path / "run.safetensors", stop_after=2)
    torch.manual_seed(99)
    resumed, again = trained(checkpoint=tmp_path / "run.safetensors")
    assert again == history
    for one, other in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_finished_run_is_not_trained_again(tmp_path):
    _, history = trained(checkpoint=tmp_path / "run.safetensors")
    seen = []
    net = Counts()
    config = FitConfig(epochs=6, batch_size=8, seed=3)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.05)
    assert (
        fit(net, splits(), optimizer, config, on_epoch=seen.append, checkpoint=tmp_path / "run.safetensors") == history
    )
    assert not seen


def test_the_learning_rate_follows_the_cosine():
    net = Counts()
    optimizer = torch.optim.SGD([{"params": [net.fc.weight], "lr": 1.0}, {"params": [net.fc.bias], "lr": 0.1}])
    seen = []
    fit(
        net,
        splits(),
        optimizer,
        FitConfig(epochs=4),
        on_epoch=lambda _: seen.append([g["lr"] for g in optimizer.param_groups]),
    )
    assert [rates[0] for rates in seen] == pytest.approx([1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5])
    assert all(rates[1] == pytest.approx(0.1 * rates[0]) for rates in seen)


def test_advance_sees_the_progress_once_an_epoch():
    progress = []
    trained(epochs=4, advance=progress.append)
    assert progress == [0.25, 0.5, 0.75, 1.0]


def test_test_data_are_never_shown_to_the_net():
    class Watching(Counts):
        def forward(self, spikes):
            assert not (spikes == 7).any(), "test data reached the net"
            return super().forward(spikes)

    marked = dataclasses.replace(
        splits(), test=Frames(torch.full((20, 6, 6), 7, dtype=torch.uint8), torch.arange(6) % 3)
    )
    net = Watching()
    fit(net, marked, torch.optim.SGD(net.parameters(), lr=0.1), FitConfig(epochs=1))


def test_the_global_generator_is_left_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    net = Counts()
    torch.random.set_rng_state(before)
    fit(net, splits(), torch.optim.SGD(net.parameters(), lr=0.1), FitConfig(epochs=2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_predict_restores_the_mode_and_batches_do_not_matter():
    net = Counts()
    scores = predict(net, splits().test, batch_size=7)
    assert net.training
    torch.testing.assert_close(scores, predict(net, splits().test))


def test_scores_that_do_not_fit_the_labels_fail_before_training():
    net = Counts(classes=2)
    with pytest.raises(ShapeError, match="more than 2"):
        fit(net, splits(), torch.optim.SGD(net.parameters(), lr=0.1), FitConfig())


def test_a_loss_that_is_not_finite_stops_at_once():
    net = Counts()
    with torch.no_grad():
        net.fc.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="epoch 1"):
        fit(net, splits(), torch.optim.SGD(net.parameters(), lr=0.1), FitConfig())


@pytest.mark.parametrize("options", [{"epochs": 0}, {"batch_size": 0}, {"clip": 0.0}, {"clip": float("nan")}])
def test_bad_settings(options):
    with pytest.raises(ConfigError):
        FitConfig(**options)


@pytest.mark.parametrize("damage", ["truncated", "pickle", "foreign", "settings", "model"])
def test_states_that_do_not_fit_are_refused(tmp_path, damage):
    path = tmp_path / "run.safetensors"
    trained(checkpoint=path, epochs=2)
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-40])
    elif damage == "pickle":
        torch.save({"net": 1}, path)
    elif damage == "foreign":
        save_file({"a": torch.zeros(1)}, path)
    net = Counts(channels=6, classes=5 if damage == "model" else 3)
    config = FitConfig(epochs=3 if damage == "settings" else 2, batch_size=8, seed=3)
    with pytest.raises(CheckpointError, match="run.safetensors"):
        fit(net, splits(), torch.optim.AdamW(net.parameters()), config, checkpoint=path)


def test_devices_are_checked_early():
    assert choose_device("cpu").type == "cpu"
    assert choose_device("auto").type in ("cpu", "cuda", "mps", "xpu")
    with pytest.raises(ConfigError):
        choose_device("abacus")


@pytest.mark.parametrize("component", ["dropout", "stochastic"])
def test_what_a_net_draws_at_random_follows_the_seed_and_nothing_else(component):
    found = []
    for before in (5, 6):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Dropout(0.5), Counts()) if component == "dropout" else Counts()
        if component == "stochastic":
            delrec = pytest.importorskip("delaykit_delrec", reason="rounds delays at random")
            delay = delrec.DelRec("axonal", max_delay=30, sigma=0.0, init="uniform", rounding="stochastic")
            rules, draw = {"fc": dk.At(delay, time_dim=0, reset="root")}, torch.Generator().manual_seed(0)
            net = Late()
            dk.wrap_(net, rules, example=torch.ones(20, 2, 6), generator=draw)
        torch.manual_seed(before)
        state = torch.get_rng_state()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        found.append(fit(net, splits(), optimizer, FitConfig(epochs=2, batch_size=8, seed=3)))
        assert torch.equal(torch.get_rng_state(), state)
    assert found[0] == found[1]
