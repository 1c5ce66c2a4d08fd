"""A job is trained the same way whatever happens: killed and resumed, on two processes, with callbacks of one's own."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

import delaykit as dk
from delaykit_lab import DelayTraining, FitConfig, Job, Resumable, fit, lightning_callback, train, train_job
from delaykit_lab.methods import apply_
from delaykit_lab.training.callbacks import load_model_, progress_of, save_model_
from delaykit_lab.training.checkpoint import pruning_states
from delaykit_lab.training.trainer import build, make_optimizer

SMALL = {"samples": 96, "held": 48}
DELAYS = "free:synaptic,max_delay=16"


def small(methods=(DELAYS,), **options):
    return Job(**{"task": "moving-wave", "model": "rsnn:12", "methods": methods, "set": SMALL, "epochs": 5} | options)


class Killed(Exception):
    pass


def kill_after(epoch):
    def watch(record):
        if record["epoch"] == epoch:
            raise Killed

    return watch


def without_time(history):
    return [{name: value for name, value in record.items() if name != "seconds"} for record in history]


@pytest.mark.parametrize("methods", [
    pytest.param((DELAYS,), marks=pytest.mark.slow), (DELAYS, "sparsify:0.5,regrow=random"),
    ("delrec:axonal,dropout=0.3", "sparsify:0.6,scope=global,schedule=cubic"),
    pytest.param(("hetsyn:synaptic@fc*",), marks=pytest.mark.slow), ("motif:6",),
])  # fmt: skip
def test_a_killed_training_goes_on_to_the_very_same_numbers(tmp_path, methods):
    job = small(methods, augment="shift=1,drop=0.1", delay_lr=0.2)
    whole = train_job(job)
    for stop in (2, 4):  # killed twice
        with pytest.raises(Killed):
            train_job(job, state=tmp_path / "s.safetensors", watch=kill_after(stop))
    again = train_job(job, state=tmp_path / "s.safetensors")
    assert without_time(again.record["history"]) == without_time(whole.record["history"])
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, again.net.state_dict()[name]), name
    ours, theirs = pruning_states(whole.net), pruning_states(again.net)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert bool(ours) == any("sparsify" in word for word in methods)
    with pytest.raises(dk.CheckpointError, match="use the same settings"):
        train_job(dataclasses.replace(job, lr=0.5), state=tmp_path / "s.safetensors")


def test_the_older_loops_remember_pruning_too(tmp_path):
    job = small((DELAYS, "sparsify:0.5,regrow=random"))
    splits = job.make_task().splits(0)

    def start():
        net = build(job, job.make_task(), splits)
        optimizer = make_optimizer(net, job)
        dk.attach(optimizer, net)
        return net, optimizer

    def run(epochs, path):
        net, optimizer = start()
        fit(net, splits, optimizer, FitConfig(epochs=4), advance=lambda p: dk.advance_(net, p), checkpoint=path,
            on_epoch=lambda e: (_ for _ in ()).throw(Killed) if e.epoch == epochs else None)  # fmt: skip
        return net

    whole = run(None, None)
    with pytest.raises(Killed):
        run(2, tmp_path / "fit.safetensors")
    again = run(None, tmp_path / "fit.safetensors")
    assert pruning_states(whole).keys() and all(
        torch.equal(v, pruning_states(again)[k]) for k, v in pruning_states(whole).items()
    )
    net, optimizer = start()
    order = torch.Generator().manual_seed(0)
    training = Resumable(tmp_path / "own.safetensors", net, optimizer, order, {})
    for epoch in training.epochs(2):
        dk.advance_(net, (epoch + 1) / 4)
        training.history.append({"loss": 0.0})
    other, optimizer = start()
    Resumable(tmp_path / "own.safetensors", other, optimizer, order, {})
    assert all(torch.equal(v, pruning_states(other)[k]) for k, v in pruning_states(net).items())


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    words = ["-m", "delaykit", "train", "--task", "moving-wave", "--model", "rsnn:12", "--with", DELAYS, "--device",
             "cpu", "--epochs", "3", "--batch-size", "33", "--set", "samples=97", "--set", "held=49"]  # fmt: skip
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    for name, command in (("one", words), ("two", [*launch, *words])):
        done = subprocess.run([sys.executable, *command, "--out", str(tmp_path / name)], env=env, capture_output=True,
                              text=True, check=False)  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
    one, two = (json.loads((tmp_path / name / "results.json").read_text())["runs"][0] for name in ("one", "two"))
    for ours, theirs in zip(one["history"], two["history"], strict=True):
        assert theirs["train_loss"] == pytest.approx(ours["train_loss"], rel=1e-5)
        assert theirs["train_accuracy"] == ours["train_accuracy"]
        assert theirs["delay/fc1"] == pytest.approx(ours["delay/fc1"], rel=1e-5)
    assert one["test"] == two["test"] and one["delays"]["before"] == two["delays"]["before"]


def test_attach_finds_the_optimizer_that_accelerate_wraps():
    from accelerate import Accelerator

    net = torch.nn.Sequential(torch.nn.Linear(2, 2))
    dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", max_delay=5, init=5), reset="manual")})
    accelerator = Accelerator(cpu=True)
    optimizer = accelerator.prepare(torch.optim.SGD(dk.param_groups(net, lr=0.1)))
    training = DelayTraining(net, optimizer)
    net[0].dk.delay.delay.grad = torch.tensor([-1.0, 1.0])
    optimizer.step()
    assert net[0].dk.delay.delay.tolist() == [5.0, 0.0]
    training.remove()
    optimizer.step()
    assert net[0].dk.delay.delay.tolist()[0] > 5.0


def test_bfloat16_trains_and_delays_stay_float32():
    trained = train_job(small((DELAYS + "@fc1", "delrec"), precision="bf16", epochs=2))
    delays = [p for n, p in trained.net.named_parameters() if ".delay." in n]
    assert delays and all(p.dtype == torch.float32 for p in delays) and trained.record["history"][-1]["train_loss"] < 10


@pytest.fixture
def no_torchvision(monkeypatch):
    """Lightning's metrics import torchvision where they find it; beside a CPU build of torch it cannot be imported."""
    fake = MagicMock()
    fake.__spec__ = ModuleSpec("torchvision", None)
    for name in ("torchvision", "torchvision.models", "torchvision.transforms"):
        monkeypatch.setitem(sys.modules, name, fake)


def test_in_lightning_s_loop_delays_stay_in_bounds_and_pruning_is_kept(tmp_path, no_torchvision):
    lightning = pytest.importorskip("pytorch_lightning", reason="Lightning is not installed")
    job = small((DELAYS, "sparsify:0.5"))
    splits = job.make_task().splits(0)

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = build(job, job.make_task(), splits)

        def training_step(self, index, _):
            x, y = splits.train.batch(index[0])
            return torch.nn.functional.cross_entropy(self.net(x), y)

        def configure_optimizers(self):
            return torch.optim.SGD(dk.param_groups(self, lr=0.1, delay_lr=500.0))

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.arange(96)), batch_size=32)
    module = Module()
    before = dk.status(module.net).delays["fc1"].clone()
    trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_progress_bar=False,
                                enable_model_summary=False, default_root_dir=tmp_path,
                                callbacks=[lightning_callback()()])  # fmt: skip
    trainer.fit(module, loader)
    after = dk.status(module.net).delays["fc1"]
    assert not torch.equal(before, after) and float(after.min()) >= 0 and float(after.max()) <= 16
    assert float((module.net.fc1.weight == 0).double().mean()) == 0.5 and "delay/fc1" in trainer.callback_metrics
    trainer.save_checkpoint(tmp_path / "l.ckpt")
    kept = torch.load(tmp_path / "l.ckpt", weights_only=True)["delaykit_pruning"]
    assert kept.keys() == pruning_states(module).keys() and kept


def test_in_lightning_s_loop_steps_may_be_the_end_and_optimizers_several(tmp_path, no_torchvision):
    lightning = pytest.importorskip("pytorch_lightning", reason="Lightning is not installed")
    job = small((DELAYS, "sparsify:0.5"))
    splits = job.make_task().splits(0)

    class Module(lightning.LightningModule):
        automatic_optimization = False

        def __init__(self):
            super().__init__()
            self.net = build(job, job.make_task(), splits)

        def training_step(self, index, _):
            x, y = splits.train.batch(index[0])
            for optimizer in self.optimizers():
                optimizer.zero_grad()
            self.manual_backward(torch.nn.functional.cross_entropy(self.net(x), y))
            for optimizer in self.optimizers():
                optimizer.step()

        def configure_optimizers(self):
            groups = dk.param_groups(self, lr=0.1, delay_lr=500.0)
            return [torch.optim.SGD([group]) for group in groups]

    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.arange(96)), batch_size=32)
    module, callback = Module(), lightning_callback()()
    trainer = lightning.Trainer(max_steps=12, accelerator="cpu", logger=False, enable_progress_bar=False,
                                enable_model_summary=False, enable_checkpointing=False, default_root_dir=tmp_path,
                                callbacks=[callback])  # fmt: skip
    trainer.fit(module, loader)
    delays = dk.status(module.net).delays["fc1"]
    assert float(delays.min()) >= 0 and float(delays.max()) <= 16
    assert float((module.net.fc1.weight == 0).double().mean()) == 0.5  # the schedule went to its end
    optimizers = module.optimizers()
    endless = SimpleNamespace(max_epochs=-1, max_steps=-1, current_epoch=3, global_step=9, optimizers=optimizers)
    with pytest.warns(UserWarning, match="max_epochs, max_steps or max_time"):
        callback.on_train_start(endless, module)
    callback.on_train_epoch_end(endless, SimpleNamespace(log_dict=lambda values: None))


def test_the_nearest_limit_of_a_lightning_training_is_its_end():
    timer = SimpleNamespace(time_elapsed=lambda: 30.0, time_remaining=lambda: 10.0)
    endless = SimpleNamespace(time_elapsed=lambda: 30.0, time_remaining=lambda: None)
    limits = {"max_epochs": -1, "max_steps": -1, "current_epoch": 3, "global_step": 9}
    trainer = SimpleNamespace(callbacks=[endless, object()], **limits)
    assert progress_of(trainer) is None
    trainer.callbacks.append(timer)
    assert progress_of(trainer) == 0.75
    trainer.max_steps = 10
    assert progress_of(trainer) == 0.9
    trainer.max_epochs = 2
    assert progress_of(trainer) == 1.0


def test_a_lightning_that_cannot_be_imported_is_a_sentence(monkeypatch):
    from delaykit_lab.training import callbacks

    def fails(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(callbacks.importlib, "import_module", fails)
    with pytest.raises(dk.ConfigError, match="cannot be imported.*torchvision::nms"):
        lightning_callback()

    def missing(name):
        raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])

    monkeypatch.setattr(callbacks.importlib, "import_module", missing)
    with pytest.raises(dk.ConfigError, match="pip install lightning"):
        lightning_callback()


def test_arguments_in_another_order(tmp_path):
    net = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for wrong in ((optimizer, net), (None, None), (net, None), (net, 3), (net, [])):
        with pytest.raises(dk.ConfigError, match="DelayTraining"):
            DelayTraining(*wrong)
    job = small(())
    for wrong in (("moving-wave", tmp_path), (tmp_path, job), (job, None)):
        with pytest.raises(dk.ConfigError, match="in this order"):
            train(*wrong)
    for seeds in (0, "2", 1.5):
        with pytest.raises(dk.ConfigError, match="seeds"):
            train(job, tmp_path, seeds=seeds)


def test_a_bare_model_s_file_tells_a_changed_byte_and_former_ones_load(tmp_path):
    from safetensors.torch import save_model

    net, other = (torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 3)) for _ in range(2))
    for one in (net, other):
        one[1].weight = torch.nn.Parameter(torch.rand(3, 2))
        one.also = one[0]  # one tensor under two names
    training = DelayTraining(net, torch.optim.SGD(net.parameters(), lr=0.1))
    training.save(tmp_path / "net")
    path = tmp_path / "net.model.safetensors"
    load_model_(other, tmp_path / "net")
    assert all(torch.equal(a, b) for a, b in zip(net.parameters(), other.parameters(), strict=True))
    whole = bytearray(path.read_bytes())
    whole[-2] ^= 4
    path.write_bytes(bytes(whole))
    with pytest.raises(dk.CheckpointError):
        load_model_(other, tmp_path / "net")
    save_model(net, str(path))
    other[0].weight.data.zero_()
    load_model_(other, tmp_path / "net")
    assert torch.equal(other.also.weight, net[0].weight)
    (tmp_path / "file").write_text("")
    with pytest.raises(dk.CheckpointError):
        save_model_(net, tmp_path / "file" / "net")


def test_a_model_is_saved_with_its_base_weights_in_one_call(tmp_path):
    job = small((DELAYS, "sparsify:0.5"))
    trained, splits = train_job(dataclasses.replace(job, epochs=1)), job.make_task().splits(0)
    save_model_(trained.net, tmp_path / "deep" / "net")
    other = build(dataclasses.replace(job, seed=9), job.make_task(), splits)
    load_model_(other, tmp_path / "deep" / "net")
    x = splits.test.batch(torch.arange(8))[0]
    assert torch.equal(other(x), trained.net(x))
    bare = build(small(()), job.make_task(), splits)
    with pytest.raises(dk.CheckpointError, match="built and wrapped alike"):
        load_model_(bare, tmp_path / "nothing")


def test_seeds_logs_pictures_and_going_on(tmp_path):
    seen = []
    job = small(epochs=2)
    first = train(job, tmp_path / "r", seeds=2, device="cpu", on_epoch=lambda seed, record: seen.append(seed))
    assert seen == [0, 0, 1, 1] and len((tmp_path / "r" / "log.jsonl").read_text().splitlines()) == 4
    names = {path.name for path in (tmp_path / "r").iterdir()}
    assert {"results.json", "learning.png", "delays.png", "net0.safetensors", "seed1.json"} <= names
    with pytest.raises(dk.ConfigError, match="pass --resume"):
        train(job, tmp_path / "r", seeds=2, device="cpu")
    before = json.loads((tmp_path / "r" / "results.json").read_text())
    assert train(job, tmp_path / "r", seeds=2, device="cpu", resume=True) == first
    assert json.loads((tmp_path / "r" / "results.json").read_text()) == before
    assert first[0]["delays"]["before"] != first[1]["delays"]["before"] and first[0]["test"] <= 1.0


def test_a_place_that_cannot_be_written_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(dk.ConfigError, match="cannot be written.*pass another --out"):
        train(small(epochs=1), tmp_path / "file" / "r", device="cpu")


@pytest.mark.slow
def test_a_full_disk_loses_nothing_that_is_finished(tmp_path, monkeypatch):
    from delaykit_lab.training import trainer

    real, calls = trainer.save_run, []

    def full(*words):
        calls.append(1)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        real(*words)

    monkeypatch.setattr(trainer, "save_run", full)
    with pytest.raises(dk.ConfigError, match="No space left.*pass --resume"):
        train(small(epochs=2), tmp_path / "r", seeds=2, device="cpu")
    monkeypatch.undo()
    records = train(small(epochs=2), tmp_path / "r", seeds=2, device="cpu", resume=True)
    whole = train(small(epochs=2), tmp_path / "w", seeds=2, device="cpu")
    assert [without_time(r["history"]) for r in records] == [without_time(r["history"]) for r in whole]


@pytest.mark.slow
def test_ten_lines_of_python_are_enough(tmp_path):
    job = Job(task="moving-wave", model="snn:24", methods=("free:synaptic,max_delay=16",), delay_lr=0.2, epochs=8)
    [learned] = train(job, tmp_path / "a", device="cpu")
    [bare] = train(dataclasses.replace(job, methods=()), tmp_path / "b", device="cpu")
    assert learned["test"] > bare["test"] + 0.1 and learned["chance"] == 0.125


def test_several_methods_share_a_connection():
    job = small(("delrec:axonal,max_delay=9", "sparsify:0.5@lif*"))
    splits = job.make_task().splits(0)
    net = apply_(job.spec().build(job.make_task(), 0), job.parsed(), splits.train.batch(torch.arange(2))[0], 0)
    [site] = dk.wrapped_sites(net)
    assert site.name == "lif1.recurrent" and site.synapse.delay.config.max_delay == 9
    assert len(site.synapse.prunings) == 1
