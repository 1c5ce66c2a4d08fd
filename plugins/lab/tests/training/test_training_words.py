"""Words of the command line mean what they say; wrong ones are answered with what was found and what to do."""

from __future__ import annotations

import os

import click
import pytest
import torch
from click.testing import CliRunner

import delaykit as dk
from delaykit.testing.junk import check_arguments
from delaykit_lab import (
    MNIST,
    NMNIST,
    SHD,
    Coincidence,
    FitConfig,
    IntervalDiscrimination,
    Job,
    MovingWave,
    SoundLocalisation,
    YinYang,
)
from delaykit_lab.commands.train import train
from delaykit_lab.declared import check_declared
from delaykit_lab.methods import Method
from delaykit_lab.models.detectors import Detectors
from delaykit_lab.models.networks import ModelSpec
from delaykit_lab.training.augment import Augment
from delaykit_lab.training.config import HIGHEST, OPTIMIZERS
from delaykit_lab.training.costs import costs, count_parameters


@pytest.mark.parametrize(("change", "message"), [
    ({"task": "moving-wav"}, "did you mean 'moving-wave'"),
    ({"set": {"jiter": 1}}, "option 'jiter'; did you mean 'jitter'"),
    ({"model": "rsn:3"}, "'rsn'; did you mean 'rsnn'"),
    ({"model": "rsnn"}, "a size >= 1 for each layer"),
    ({"model": "rsnn:3,x"}, "a whole number, or option=value"),
    ({"model": "rsnn:3,neuron=adaptve"}, "did you mean 'adaptive'"),
    ({"model": "rsnn:3,gamma=1"}, "option 'gamma'"),
    ({"model": "snn:3,beta=1"}, "a decay in"),
    ({"methods": ["fre:axonal"]}, "did you mean 'free'"),
    ({"methods": ["free:axonal,max_dely=3"]}, "field 'max_dely'; did you mean 'max_delay'"),
    ({"methods": ["free:axonal,max_delay=-3"]}, "max_delay"),
    ({"methods": "free"}, "a list of words"),
    ({"epochs": 0}, "epochs"), ({"lr": "fast"}, "lr: found 'fast'"), ({"lr": float("nan")}, "a finite number > 0"),
    ({"clip": -1.0}, "clip"), ({"optimizer": "Adm"}, "did you mean 'Adam'"),
    ({"scheduler": "CosineAnealingLR"}, "did you mean 'CosineAnnealingLR'"), ({"precision": "fp8"}, "no, bf16"),
    ({"estimator": "exact"}, "a method that has it"), ({"augment": "shft=1"}, "did you mean 'shift'"),
    ({"augment": "drop=1.5"}, "a probability"), ({"augment": "drop"}, "name=value"),
    ({"augment": "noise=nan"}, "noise: found 'nan'; expected a number"), ({"augment": {"shift": 3}}, "augment"),
    ({"model": 3}, "model: found 3; expected a string"), ({"task": 3}, "task"), ({"set": 3}, "values by name"),
    ({"methods": 3}, "a list of strings"), ({"methods": [3]}, "a list of strings"),
    ({"methods": [""]}, "the name of a method"),
    ({"scheduler_options": 3}, "values by name"), ({"seed": "a"}, "seed: found 'a'"), ({"seed": 1.5}, "a whole number"),
    ({"lr": 1e38}, "lr: found 1e[+]38; expected a finite number > 0, <= 1e[+]30"), ({"delay_lr": 1e31}, "<= 1e[+]30"),
    ({"seed": 10**20}, "64 bits"), ({"epochs": True}, "epochs: found True"), ({"batch_size": True}, "batch_size"),
    ({"set": {"samples": 2.5}}, "samples: found 2.5; expected a whole number"), ({"set": {"sensors": "a"}}, "sensors"),
    ({"set": {"sweep": True}}, "sweep: found True; expected a number"),
])  # fmt: skip
def test_wrong_words(change, message):
    values = {"task": "moving-wave", "model": "snn:4"} | change
    with pytest.raises(dk.DelaykitError, match=message):
        Job.from_json(values).make_task()


def test_unknown_keys_of_a_file_and_missing_ones():
    with pytest.raises(dk.ConfigError, match="key 'epoch'; did you mean 'epochs'"):
        Job.from_json({"task": "a", "model": "snn:1", "epoch": 1})
    with pytest.raises(dk.ConfigError, match="give --task"):
        Job.from_json({"model": "snn:1"})


def test_scheduler_options_that_do_not_fit():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    job = Job("moving-wave", "snn:4", scheduler="StepLR")
    with pytest.raises(dk.ConfigError, match="step_size"):
        job.make_scheduler(optimizer)
    for name, options in (("StepLR", {"step_size": 2}), ("OneCycleLR", {}), ("ExponentialLR", {"gamma": 0.9}),
                          ("ConstantLR", {}), ("CosineAnnealingLR", {})):  # fmt: skip
        scheduler = Job("moving-wave", "snn:4", scheduler=name, scheduler_options=options).make_scheduler(optimizer)
        assert type(scheduler).__name__ == name


@pytest.mark.parametrize(("name", "options"), [
    ("StepLR", {"step_size": 0}), ("StepLR", {"step_size": "abc"}), ("StepLR", {"step_size": [1]}),
    ("ExponentialLR", {"gamma": "abc"}), ("ExponentialLR", {"gamma": float("inf")}),
    ("ExponentialLR", {"gamma": 1e300}), ("ExponentialLR", {"gamma": -0.5}),
    ("CosineAnnealingLR", {"T_max": 0}), ("OneCycleLR", {"total_steps": 2}),
])  # fmt: skip
def test_scheduler_options_that_fail_at_a_later_step(name, options):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    job = Job("moving-wave", "snn:4", epochs=4, scheduler=name, scheduler_options=options)
    with pytest.raises(dk.ConfigError, match=f"scheduler {name}"):
        job.make_scheduler(optimizer)


def test_a_rate_after_the_only_epoch_is_looked_at_too():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    job = Job("moving-wave", "snn:4", epochs=1, scheduler="ExponentialLR", scheduler_options={"gamma": float("inf")})
    with pytest.raises(dk.ConfigError, match="scheduler ExponentialLR"):
        job.make_scheduler(optimizer)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_steps_at_the_highest_rate(name):
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = getattr(torch.optim, name)([parameter], lr=1e4 * HIGHEST)
    for _ in range(2):
        parameter.grad = torch.ones(1)
        optimizer.step()
    assert float(parameter.detach()) != 0  # and torch has not refused the number


def test_a_shift_beyond_all_channels_is_refused():
    with pytest.raises(dk.ConfigError, match="shift: found 4; expected fewer than the 4 channels"):
        Augment(shift=4)(torch.ones(3, 2, 4), torch.Generator())
    assert Augment(shift=3)(torch.ones(3, 2, 4), torch.Generator().manual_seed(0)).shape == (3, 2, 4)


def test_declared_types_of_every_task_can_be_read():
    for component in dk.components("task"):
        check_declared(dk.resolve("task", component.name), {})


def test_estimator_and_rounding_reach_the_delays_that_leave_them_open():
    job = Job("moving-wave", "rsnn:4", ("free:axonal@fc1", "delrec:axonal,rounding=none", "sparsify:0.5"),
              rounding="straight-through")  # fmt: skip
    assert [getattr(method.config, "rounding", None) for method in job.parsed()] == ["straight-through", "none", None]


def test_methods_go_where_their_papers_put_them():
    net = ModelSpec.parse("rsnn:4,3").build(Job("moving-wave", "rsnn:4").make_task(), 0)
    both = ["fc1", "fc2", "lif1.recurrent", "lif2.recurrent"]
    for word, sites in (("delrec", both[2:]), ("dcls", both[:2]), ("free", both), ("sparsify:0.5", both),
                        ("free:axonal@lif2*", both[3:])):  # fmt: skip
        assert Method.parse(word).sites(net) == sites
    with pytest.raises(dk.ConfigError, match="no a recurrent|no .*recurrent connection in this model"):
        Method.parse("delrec").sites(Detectors(2, 2))


def test_equal_seeds_make_equal_networks_and_leave_torch_s_generator_alone():
    task = Job("moving-wave", "rsnn:4").make_task()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other, third = (ModelSpec.parse("rsnn:4").build(task, seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.fc1.weight, other.fc1.weight) and not torch.equal(one.fc1.weight, third.fc1.weight)


@pytest.mark.parametrize("model", [
    "rsnn:6,5", "snn:6", "rsnn:6,neuron=heterogeneous", "rsnn:6,neuron=adaptive", "detectors",
])  # fmt: skip
def test_synaptic_operations_are_counted_one_by_one(model):
    job = Job("moving-wave", model)
    net = job.spec().build(job.make_task(), 0)
    spikes = (torch.rand(12, 3, 16, generator=torch.Generator().manual_seed(0)) < 0.3).float()
    with torch.no_grad():
        (net.fc1 if hasattr(net, "fc1") else net.fc).weight[0, :3] = 0.0
        layers = net.layers(spikes)
    wanted = 0
    for index, layer in enumerate(layers):
        heard = []
        if f"fc{index + 1}" in dict(net.named_modules()):
            heard.append(net.get_submodule(f"fc{index + 1}"))
        if index == 0 and hasattr(net, "fc"):
            heard.append(net.fc)
        if index and f"lif{index}.recurrent" in dict(net.named_modules()):
            heard.append(net.get_submodule(f"lif{index}.recurrent"))
        if index == len(layers) - 1 and hasattr(net, "out"):
            heard.append(net.out)
        for connection in heard:
            own = index and connection is getattr(getattr(net, f"lif{index}", None), "recurrent", None)
            for time, _, neuron in layer.nonzero().tolist():
                if not (own and time == 11):  # it would arrive after the sample
                    wanted += int((connection.weight[:, neuron] != 0).sum())
    found = costs(net, spikes)
    assert found.synaptic_operations == pytest.approx(wanted / 3) and wanted > 100
    assert found.spikes == pytest.approx(sum(float(layer.sum()) for layer in layers[1:]) / 3)
    assert found.parameters == sum(p.numel() for p in net.parameters())


def test_pruned_weights_are_no_parameters_and_every_tap_is_an_operation():
    from delaykit_lab.training.trainer import build

    job = Job("moving-wave", "rsnn:6", ("sparsify:0.5@fc1", "motif:4,scale=0.1@lif1.recurrent"))
    splits = job.make_task().splits(0)
    net = build(job, job.make_task(), splits)
    whole = count_parameters(net)
    dk.advance_(net, 1.0)
    assert count_parameters(net) == whole - 48
    spikes = splits.test.batch(torch.arange(16))[0]
    fired = net.layers(spikes)[1].detach()
    fan = (net.fc1.weight != 0).float().sum(0)
    inputs = float(((spikes != 0).float().sum((0, 1)) * fan).sum()) / 16
    wanted = inputs + float(fired[:-1].sum() / 16) * (6 * 4) + float(fired.sum() / 16) * 8
    assert float(fired.sum()) > 8 and costs(net, spikes).synaptic_operations == pytest.approx(wanted, rel=1e-6)


def test_augmentation_moves_drops_and_adds():
    spikes = torch.zeros(50, 8, 20)
    spikes[:, :, 10] = 1.0
    generator = torch.Generator().manual_seed(0)
    moved = Augment(shift=3)(spikes, generator)
    places = moved[0].nonzero()[:, 1]
    assert moved.sum() == spikes.sum() and 7 <= int(places.min()) < int(places.max()) <= 13
    edge = torch.zeros(2, 64, 5)
    edge[:, :, 0] = 1.0
    assert 0 < float(Augment(shift=2)(edge, generator).sum()) < 128  # what leaves the channels is gone, not wrapped
    assert float(Augment(drop=0.5)(spikes, generator).sum()) == pytest.approx(200, abs=50)
    assert float(Augment(noise=0.1)(torch.zeros(50, 8, 20), generator).sum()) == pytest.approx(800, abs=120)


def test_the_command_trains_from_a_file_and_options_win(tmp_path):
    (tmp_path / "run.toml").write_text('task = "moving-wave"\nmodel = "snn:6"\nwith = ["free:synaptic,max_delay=16"]\n'
                                       'epochs = 9\n[set]\nsamples = 64\nheld = 32\n')  # fmt: skip
    words = ["--config", str(tmp_path / "run.toml"), "--epochs", "1", "--set", "held=16", "--out", str(tmp_path / "r"),
             "--device", "cpu", "--scheduler", "StepLR,step_size=1"]  # fmt: skip
    done = CliRunner().invoke(train, words)
    assert done.exit_code == 0, done.output
    assert "64 training, 16 validation" in done.output and (tmp_path / "r" / "results.json").exists()
    again = CliRunner().invoke(train, words)
    assert again.exit_code == 1 and "--resume" in again.output


def test_ctrl_c_names_resume(tmp_path, monkeypatch):
    from delaykit_lab.training import experiment

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "train_job", interrupt)
    words = ["--task", "moving-wave", "--model", "snn:4", "--out", str(tmp_path / "r"), "--device", "cpu"]
    done = CliRunner().invoke(train, words)
    assert done.exit_code == 1 and "add --resume to go on" in done.output


def test_a_file_that_is_no_toml(tmp_path):
    (tmp_path / "a.toml").write_text("task = ")
    done = CliRunner().invoke(train, ["--config", str(tmp_path / "a.toml")])
    assert done.exit_code == 1 and "a TOML file" in done.output and isinstance(train, click.Command)


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.toml")
    done = CliRunner().invoke(train, ["--config", str(tmp_path / "a.toml")])
    assert done.exit_code == 1 and "not a plain file" in done.output


TASKS = {
    "MNIST": (MNIST, "steps", "limit"),
    "MovingWave": (MovingWave, "sensors", "directions", "samples", "held", "jitter", "background", "sweep", "dt_ms"),
    "YinYang": (YinYang, "samples", "held", "dt_ms", "duration_ms"),
    "SoundLocalisation": (SoundLocalisation, "directions", "clicks", "widest", "radius_mm", "dt_ms"),
    "Coincidence": (Coincidence, "channels", "classes", "span"),
    "IntervalDiscrimination": (IntervalDiscrimination, "intervals", "fibres", "shortest", "spacing"),
    "SHD": (SHD, "channels", "dt_ms", "duration_ms", "validation", "limit"),
    "NMNIST": (NMNIST, "shrink"),
    "FitConfig": (FitConfig, "epochs", "batch_size", "clip"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TASKS)
def test_no_field_of_a_task_raises_a_raw_error(name):
    task, *fields = TASKS[name]
    assert check_arguments(task, dict, *fields) > 0
