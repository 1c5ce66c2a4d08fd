"""A small training loop: seeded, saved after every epoch, resumed to the bit, with early and clear errors.

The learning rate of every parameter group falls along half a cosine, lr_e = lr_0 (1 + cos(pi e / E)) / 2, so that the
last epoch is the result and no epoch has to be chosen.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from delaykit import ConfigError, ShapeError, TrainingError, checks
from delaykit.sealed import check_writable
from delaykit_lab.declared import Declared, path_of, plain
from delaykit_lab.task import Frames, Splits
from delaykit_lab.training.checkpoint import load_run, save_run

Forward = Callable[[Tensor], Tensor]


@dataclasses.dataclass(frozen=True)
class FitConfig(Declared):
    """How to train.

    Args:
        epochs: passes over the training set, >= 1.
        batch_size: samples a step, >= 1.
        clip: largest norm of the gradient, > 0; None: as it is.
        seed: draws the order of the samples, and whatever the net draws from torch's generator (dropout, delays that
            are rounded at random); that generator is put back afterwards.

    Raises:
        ConfigError: a number is out of range.
    """

    epochs: int = 40
    batch_size: int = 64
    clip: float | None = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("epochs", "batch_size"):
            checks.whole(f"FitConfig.{name}", getattr(self, name), least=1)
        if self.clip is not None:
            checks.number("FitConfig.clip", self.clip, above=0, fix="pass None to leave gradients as they are")


@dataclasses.dataclass(frozen=True)
class Epoch:
    """What one epoch came to: losses in nats, accuracies as fractions."""

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float


@checks.annotated
def fit(
    net: nn.Module, splits: Splits, optimizer: torch.optim.Optimizer, config: FitConfig, *,
    advance: Callable[[float], object] | None = None, on_epoch: Callable[[Epoch], None] | None = None,
    checkpoint: str | Path | None = None, identity: Mapping[str, Any] | None = None,
    device: torch.device | str = "cpu", forward: Forward | None = None,
) -> list[Epoch]:  # fmt: skip
    """Minimise the cross-entropy of ``net(spikes)`` on the training split; measure on validation; never touch test.

    Args:
        net: maps spikes ``(time, batch, channel)`` to scores ``(batch, class)``.
        splits: data of the task.
        optimizer: with its groups' initial learning rates, which it has again in the end.
        config: how to train.
        advance: called after each epoch with the progress in (0, 1], for schedules of delays.
        on_epoch: called with each new epoch's record, for progress bars.
        checkpoint: file to save to after each epoch, and to go on from where it exists; None: neither.
        identity: JSON values that say what else makes this run (data, model): a checkpoint that was saved with others
            is refused, as is one of other components, another optimizer, other rates, or splits of another size.
        device: where to train.
        forward: what is called in the place of ``net``, for example ``dk.fused(net)``.

    Returns:
        One record an epoch, those before an interruption included.

    Raises:
        ShapeError: the net's scores do not fit the labels, or a split is empty.
        ConfigError: no such device.
        TrainingError: the loss is not finite.
        CheckpointError: the checkpoint is of another run, or could not be written.

    Example:
        >>> class Counts(nn.Linear):  # a net that sees spike counts alone
        ...     def forward(self, spikes):
        ...         return super().forward(spikes.sum(dim=0))
        >>> frames = Frames(torch.ones(5, 4, 3, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]))
        >>> net = Counts(3, 2)
        >>> optimizer = torch.optim.Adam(net.parameters())
        >>> [record.epoch for record in fit(net, Splits(frames, frames, frames), optimizer, FitConfig(epochs=2))]
        [1, 2]
    """
    net.to(choose_device(str(device)))
    training = _Training(net, forward or net, splits, optimizer, config, device)
    path = None if checkpoint is None else path_of("fit checkpoint", checkpoint)
    settings = {"fit": dataclasses.asdict(config), "identity": plain("fit identity", identity or {})}
    more = plain("fit", {"learning rates": training.rates, "shapes of the splits": _shapes(splits)})
    history: list[Epoch] = []
    with seeded(config.seed), training.rates_put_back():
        if path is not None:
            check_writable(path)
            if path.exists():
                records = load_run(path, net, optimizer, training.order, settings, more)
                history = [Epoch(**record) for record in records]
        for number in range(len(history), config.epochs):
            history.append(training.epoch(number, advance))
            if path is not None:
                records = [dataclasses.asdict(record) for record in history]
                save_run(path, net, optimizer, training.order, settings, records, more)
            if on_epoch is not None:
                on_epoch(history[-1])
    return history


class _Training:
    """What :func:`fit` trains, on what and how: checked, and then epoch by epoch."""

    def __init__(
        self, net: nn.Module, forward: Forward, splits: Splits, optimizer: torch.optim.Optimizer, config: FitConfig,
        device: torch.device | str,
    ) -> None:  # fmt: skip
        _check_splits(splits)
        _check_scores(net, splits, device, forward)
        self.net, self.forward, self.splits, self.optimizer, self.device = net, forward, splits, optimizer, device
        self.config = config
        self.order = torch.Generator().manual_seed(config.seed)
        self.rates = [group["lr"] for group in optimizer.param_groups]

    @contextlib.contextmanager
    def rates_put_back(self) -> Iterator[None]:
        """Give the groups their learning rates back, also where a training is interrupted: it may be called again."""
        try:
            yield
        finally:
            self._set_rates(self.rates)

    def _set_rates(self, rates: list[Any]) -> None:
        for group, rate in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = rate

    def epoch(self, number: int, advance: Callable[[float], object] | None) -> Epoch:
        """Train for the epoch that comes after ``number`` others, and measure."""
        share = 0.5 * (1.0 + math.cos(math.pi * number / self.config.epochs))
        self._set_rates([rate * share for rate in self.rates])
        train_loss, train_accuracy = self._pass(number + 1)
        if advance is not None:
            advance((number + 1) / self.config.epochs)
        validation = self.splits.validation
        scores = predict(self.net, validation, device=self.device, forward=self.forward)
        loss = functional.cross_entropy(scores, validation.labels).item()
        return Epoch(number + 1, train_loss, train_accuracy, loss, accuracy(scores, validation))

    def _pass(self, number: int) -> tuple[float, float]:
        """Show all samples once; return the mean loss and accuracy."""
        self.net.train()
        frames, total, right = self.splits.train, 0.0, 0
        for index in torch.randperm(len(frames), generator=self.order).split(self.config.batch_size):
            spikes, labels = frames.batch(index, self.device)
            scores = self.forward(spikes)
            loss = functional.cross_entropy(scores, labels)
            if not torch.isfinite(loss):
                found = f"a loss of {loss.item()} in epoch {number}"
                raise TrainingError("fit", found, "a finite loss", "lower the learning rate")
            self.optimizer.zero_grad()
            loss.backward()
            if self.config.clip is not None:
                nn.utils.clip_grad_norm_(self.net.parameters(), self.config.clip)
            self.optimizer.step()
            total += loss.item() * len(index)
            right += int((scores.argmax(dim=1) == labels).sum())
        return total / len(frames), right / len(frames)


def _shapes(splits: Splits) -> dict[str, Any]:
    return {name: tuple(getattr(splits, name).spikes.shape) for name in ("train", "validation", "test")}


def _check_splits(splits: Splits) -> None:
    for name, shape in _shapes(splits).items():
        frames = getattr(splits, name)
        if not (shape[0] and (shape[1] or name == "test")):
            fix = "give every split samples of at least one step"
            raise ShapeError(f"fit {name}", f"frames of shape {shape}", "(time, sample, channel), none of them 0", fix)
        if len(frames.labels) and int(frames.labels.min()) < 0:
            found, fix = f"a label of {int(frames.labels.min())}", "number the classes from 0"
            raise ShapeError(f"fit {name}", found, "labels >= 0", fix)
        if frames.spikes.is_floating_point() and not bool(frames.spikes.isfinite().all()):
            raise ShapeError(f"fit {name}", "NaN or infinite spikes", "finite ones", "look at what made the frames")


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's own generator, for dropout and the like, and put it back afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@checks.annotated
def predict(
    net: nn.Module,
    frames: Frames,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    *,
    forward: Forward | None = None,
) -> Tensor:
    """Score all samples without gradients, in evaluation mode; the mode is restored.

    Args:
        net: the model.
        frames: its samples.
        batch_size: samples at a time.
        device: where it runs.
        forward: what is called in the place of ``net``, for example ``dk.fused(net)``.

    Returns:
        Scores ``(sample, class)`` on the CPU.
    """
    checks.whole("predict batch_size", batch_size, least=1)
    was_training = net.training
    net.eval()
    with torch.no_grad():
        batches = torch.arange(len(frames)).split(batch_size)
        scores = torch.cat([(forward or net)(frames.batch(index, device)[0]).cpu() for index in batches])
    net.train(was_training)
    return scores


def accuracy(scores: Tensor, frames: Frames) -> float:
    """Return the fraction of samples whose highest score is that of their label."""
    return (scores.argmax(dim=1) == frames.labels).double().mean().item()


def choose_device(name: str) -> torch.device:
    """Turn ``cpu``, ``cuda``, ... or ``auto`` (what Hugging Face accelerate finds) into a device.

    Raises:
        ConfigError: torch knows no device of that name, or it is not there.
    """
    if name == "auto":
        from accelerate import PartialState

        return PartialState().device
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as problem:
        raise ConfigError("device", repr(name), "a device of this machine", "use 'auto' or 'cpu'") from problem
    return torch.device(name)


def _check_scores(net: nn.Module, splits: Splits, device: torch.device | str, forward: Forward) -> None:
    """Fail before training, not after the first epoch."""
    first = splits.train.subset(torch.arange(min(2, len(splits.train))))
    scores = predict(net, first, device=device, forward=forward)
    there = [frames for frames in (splits.train, splits.validation, splits.test) if len(frames)]
    highest = max(int(frames.labels.max()) for frames in there)
    if scores.dim() != 2 or scores.shape[0] != len(first) or scores.shape[1] <= highest:
        expected = f"({len(first)}, more than {highest})"
        raise ShapeError("fit", f"scores of shape {tuple(scores.shape)}", expected, "return (batch, class) scores")
