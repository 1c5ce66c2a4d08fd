"""Train one job with Hugging Face accelerate underneath: on a CPU, a GPU, or several processes and machines.

Each process takes every n-th sample of a batch; its loss is weighted by its share, so that n processes take the step
that one would. After every epoch the state goes to one file, from which a killed run goes on to the same numbers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import delaykit as dk
from delaykit import checks
from delaykit_lab.methods import apply_, is_wrapped
from delaykit_lab.task import Frames, Splits, Task
from delaykit_lab.training.augment import Augment
from delaykit_lab.training.callbacks import DelayTraining
from delaykit_lab.training.checkpoint import load_run, save_run
from delaykit_lab.training.config import Job
from delaykit_lab.training.costs import costs
from delaykit_lab.training.runner import seeded

if TYPE_CHECKING:
    from accelerate import Accelerator

Watch = Callable[[dict[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained network with its record.

    Args:
        net: the network, wrapped.
        record: JSON values: ``history``, ``validation``, ``test`` and ``test_whole`` where asked for, costs, delays.
    """

    net: nn.Module
    record: dict[str, Any]


def make_accelerator(device: str = "auto") -> Accelerator:
    """Return accelerate's ``Accelerator``: what ``accelerate launch`` or ``torchrun`` set up, or this process alone.

    Args:
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.

    Raises:
        ConfigError: there is no such device.
    """
    from accelerate import Accelerator

    if not isinstance(device, str) or device not in ("auto", "cpu", "cuda"):
        raise dk.ConfigError("device", repr(device), "auto, cpu or cuda", "choose a GPU with CUDA_VISIBLE_DEVICES")
    if device == "cuda" and not torch.cuda.is_available():
        raise dk.ConfigError("device", "'cuda'", "a GPU that torch sees", "use --device auto or cpu")
    return Accelerator(cpu=device == "cpu")


def build(job: Job, task: Task, splits: Splits) -> nn.Module:
    """Make the job's network and wrap it."""
    net = job.spec().build(task, job.seed)
    example = splits.train.batch(torch.arange(min(2, len(splits.train))))[0]
    return apply_(net, job.parsed(), example, job.seed)


def make_optimizer(net: nn.Module, job: Job) -> torch.optim.Optimizer:
    """Make the job's optimizer, with the rate of delays for delays."""
    kind = getattr(torch.optim, job.optimizer)
    if not is_wrapped(net):
        return kind(net.parameters(), lr=job.lr, weight_decay=job.weight_decay)
    return kind(dk.param_groups(net, lr=job.lr, delay_lr=job.delay_lr, weight_decay=job.weight_decay))


@checks.annotated
def train_job(
    job: Job, *, state: Path | None = None, score_test: bool = True, watch: Watch | None = None,
    accelerator: Accelerator | None = None, splits: Splits | None = None,
) -> Trained:  # fmt: skip
    """Train, measure on validation after every epoch, and score the test set once, after the last.

    Args:
        job: what to train.
        state: file to save to after each epoch, and to go on from where it exists; None: neither.
        score_test: whether to touch the test set; False where something is still chosen.
        watch: called with each new epoch's record, on the main process.
        accelerator: from :func:`make_accelerator`; None: the CPU, in this process.
        splits: the data, where they were read before.

    Returns:
        The network and its record.

    Raises:
        TrainingError: the loss is not finite.
        CheckpointError: the state is of another run.
    """
    if accelerator is not None and not hasattr(accelerator, "prepare"):
        found, fix = checks.shown(accelerator), "pass make_accelerator(device), or None"
        raise dk.ConfigError("train_job accelerator", found, "accelerate's Accelerator or None", fix)
    accelerator = accelerator or make_accelerator("cpu")
    task = job.make_task()
    splits = task.splits(job.seed) if splits is None else splits
    with seeded(job.seed):
        net = build(job, task, splits)
        optimizer = make_optimizer(net, job)
        loop = Loop(job, net, optimizer, splits, accelerator)
        start = loop.delays.values()
        seconds = loop.run(state, watch)
        record = loop.record(task, start, score_test)
    return Trained(net, record | {"seconds": seconds, "job": job.to_json()})


class Loop:
    """The epochs of one job.

    Args:
        job: what to train.
        net: the wrapped network.
        optimizer: of its parameters.
        splits: data.
        accelerator: devices and processes.
    """

    def __init__(
        self, job: Job, net: nn.Module, optimizer: torch.optim.Optimizer, splits: Splits, accelerator: Accelerator
    ) -> None:
        self.job, self.net, self.splits, self.accelerator = job, net, splits, accelerator
        self.optimizer, self.scheduler = optimizer, job.make_scheduler(optimizer)
        self.order = torch.Generator().manual_seed(job.seed)
        self.augment = Augment.parse(job.augment)
        self.model, self.stepper = accelerator.prepare(net, optimizer)
        self.delays = DelayTraining(net, self.stepper)
        self.history: list[dict[str, Any]] = []

    def run(self, state: Path | None, watch: Watch | None) -> float:
        """Train the epochs that are missing; return the seconds of all, earlier ones included."""
        identity = {"job": self.job.to_json()}
        if state is not None and state.exists():
            self.history = load_run(state, self.net, self.optimizer, self.order, identity)
            with _quiet_scheduler():
                for _ in self.history:
                    self.scheduler.step()
        for epoch in range(len(self.history), self.job.epochs):
            began = self._clock()
            rate = self.optimizer.param_groups[0]["lr"]
            loss, right = self._epoch(epoch)
            self.scheduler.step()
            reports = self.delays.advance((epoch + 1) / self.job.epochs)
            valid_loss, valid_right = self.score(self.splits.validation)
            record = {"epoch": epoch + 1, "train_loss": loss, "train_accuracy": right, "lr": rate}
            record |= {"validation_loss": valid_loss, "validation_accuracy": valid_right}
            record["seconds"] = self._clock() - began
            kept = [report.kept / report.total for report in reports.values() if report.total]
            record |= self.delays.log() | ({"density": sum(kept) / len(kept)} if kept else {})
            self.history.append(record)
            if state is not None and self.accelerator.is_main_process:
                save_run(state, self.net, self.optimizer, self.order, identity, self.history)
            if watch is not None and self.accelerator.is_main_process:
                watch(record)
        return sum(record["seconds"] for record in self.history)

    def _epoch(self, epoch: int) -> tuple[float, float]:
        frames, rank, world = self.splits.train, self.accelerator.process_index, self.accelerator.num_processes
        self.model.train()
        totals = torch.zeros(2, dtype=torch.float64, device=self.accelerator.device)
        for index in torch.randperm(len(frames), generator=self.order).split(self.job.batch_size):
            mine = index[rank::world]
            empty = len(mine) == 0  # fewer samples than processes: take part in the step, weigh nothing
            spikes, labels = frames.batch(index[:1] if empty else mine, self.accelerator.device)
            spikes = self.augment(spikes, self.order)
            with self._autocast():
                scores = self.model(spikes)
            loss = functional.cross_entropy(scores.float(), labels, reduction="sum")
            if not bool(torch.isfinite(loss)):
                found, fix = f"a loss of {loss.item()} in epoch {epoch + 1}", "lower --lr or --delay-lr, or set --clip"
                raise dk.TrainingError(f"{self.job.model} {' '.join(self.job.methods)}", found, "a finite loss", fix)
            weight = 0.0 if empty else 1.0
            self.stepper.zero_grad()
            self.accelerator.backward(loss * (weight * world / len(index)))
            if self.job.clip is not None:
                self.accelerator.clip_grad_norm_(self.net.parameters(), self.job.clip)
            self.stepper.step()
            totals += weight * torch.stack([loss.detach(), (scores.argmax(1) == labels).sum()]).double()
        loss_sum, right = (self.accelerator.reduce(totals, "sum") / len(frames)).tolist()
        return loss_sum, right

    def _clock(self) -> float:
        """On a CPU its own seconds, whatever else the machine does; on a GPU those of the clock."""
        return time.process_time() if self.accelerator.device.type == "cpu" else time.perf_counter()

    def _autocast(self) -> torch.autocast:
        # torch's own: accelerate settles on one precision for the life of a process
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.job.precision == "bf16")

    @torch.no_grad()
    def score(self, frames: Frames) -> tuple[float, float]:
        """Return loss in nats and accuracy on all samples, shared out over processes."""
        self.net.eval()
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        totals = torch.zeros(2, dtype=torch.float64, device=self.accelerator.device)
        for index in torch.arange(len(frames))[rank::world].split(256):
            spikes, labels = frames.batch(index, self.accelerator.device)
            with self._autocast():
                scores = self.net(spikes).float()
            loss = functional.cross_entropy(scores, labels, reduction="sum")
            totals += torch.stack([loss, (scores.argmax(1) == labels).sum()]).double()
        self.net.train()
        loss_mean, right = (self.accelerator.reduce(totals, "sum") / len(frames)).tolist()
        return loss_mean, right

    def record(self, task: Task, start: dict[str, Tensor], score_test: bool) -> dict[str, Any]:
        """Return what the finished training came to."""
        last = self.history[-1]
        some = self.splits.validation.batch(torch.arange(min(128, len(self.splits.validation))))[0]
        out: dict[str, Any] = {"title": task.title(), "step_ms": task.step_ms(), "chance": 1.0 / task.classes}
        out |= {"history": self.history, "validation": last["validation_accuracy"], "train": last["train_accuracy"]}
        out |= dataclasses.asdict(costs(self.net, some.to(self.accelerator.device)))
        delays = {"before": start, "after": self.delays.values()}
        out["delays"] = {when: {site: d.flatten().tolist() for site, d in v.items()} for when, v in delays.items()}
        out["samples"] = {name: len(getattr(self.splits, name)) for name in ("train", "validation", "test")}
        if score_test:
            out["test"] = out["test_whole"] = self.score(self.splits.test)[1]
            if self.delays.wrapped and self.delays.values():
                with dk.discretized(self.net):
                    out["test_whole"] = self.score(self.splits.test)[1]
        return out


@contextlib.contextmanager
def _quiet_scheduler() -> Iterator[None]:
    """Silence torch's remark on steps of the scheduler before the optimizer's, which is what going on means."""
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*", category=UserWarning)
        yield
