"""What a training loop of one's own owes to delays, in one object: attach, advance, log, save and load.

:class:`DelayTraining` is for loops by hand and with accelerate; :class:`DelayCallback` for Lightning.
"""

from __future__ import annotations

import importlib
import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit import checks
from delaykit.sealed import commit, read_file, seal, unseal
from delaykit_lab.declared import path_of
from delaykit_lab.methods import is_wrapped

if TYPE_CHECKING:
    from delaykit import PruningReport


BARE = "delaykit-lab-model-1"  # format of a bare model's file


class DelayTraining:
    """Keep a wrapped model's delays in their bounds and on their schedules; for bare models it does nothing.

    Args:
        net: the model, wrapped or not; the model itself, not accelerate's or DDP's wrapper of it.
        optimizer: that trains it, accelerate's prepared one or torch's own; several in a list. Delays are projected
            after each step.

    Raises:
        ConfigError: no model, or no optimizer.
        TrainingError: a trainable delay is in no group of the optimizer.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 2))
        >>> _ = dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", max_delay=5, init=2), reset="manual")})
        >>> training = DelayTraining(net, torch.optim.SGD(dk.param_groups(net, lr=0.1)))
        >>> for epoch in range(3):  # each epoch of your loop
        ...     _ = training.advance((epoch + 1) / 3)
        >>> training.log()
        {'delay/0': 2.0, 'delay/0/spread_of_delays': 0.0}
    """

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer | Sequence[torch.optim.Optimizer]) -> None:
        checks.is_model("DelayTraining", net)
        several = list(optimizer) if isinstance(optimizer, (list, tuple)) else [optimizer]
        if not several or not all(hasattr(one, "step") and hasattr(one, "param_groups") for one in several):
            found, fix = f"a {type(optimizer).__name__}", "pass the model, then the optimizer that trains it"
            raise dk.ConfigError("DelayTraining optimizer", found, "an optimizer, or a list of them", fix)
        self.net, self.wrapped = net, is_wrapped(net)
        self.handle = dk.attach(optimizer, net) if self.wrapped else None

    @checks.annotated
    def advance(self, progress: float) -> dict[str, PruningReport]:
        """Follow the schedules, once an epoch; ``progress`` is the share of the training that is done."""
        return dk.advance_(self.net, progress) if self.wrapped else {}

    def values(self) -> dict[str, Tensor]:
        """Return the delays of each connection that has point delays, in steps."""
        return dict(dk.status(self.net).delays) if self.wrapped else {}

    def log(self) -> dict[str, float]:
        """Return mean and standard deviation of each connection's delays, for any logger."""
        found: dict[str, float] = {}
        for site, delays in self.values().items():
            found[f"delay/{site}"] = float(delays.double().mean())
            found[f"delay/{site}/spread_of_delays"] = float(delays.double().std(unbiased=False))
        return found

    @checks.annotated
    def save(self, path: str | Path) -> None:
        """Write delays and base weights in one call, see :func:`save_model_`."""
        save_model_(self.net, path)

    @checks.annotated
    def load(self, path: str | Path) -> None:
        """Read what :meth:`save` wrote, see :func:`load_model_`."""
        load_model_(self.net, path)

    def remove(self) -> None:
        """Stop projecting."""
        if self.handle is not None:
            self.handle.remove()


def save_model_(net: nn.Module, path: str | Path) -> None:
    """Write a model: a wrapped one by ``dk.save`` with its base weights, a bare one to ``PATH.model.safetensors``.

    Raises:
        CheckpointError: the file cannot be written; an earlier one is as it was.
    """
    target = path_of("DelayTraining path", path)
    if is_wrapped(net):
        dk.save(net, target, with_model=True)
        return
    state, first = net.state_dict(), dict[tuple[Any, ...], str]()
    for name, value in state.items():
        if not isinstance(value, Tensor):
            found, fix = f"{name}, a {type(value).__name__}", "return a tensor from get_extra_state"
            raise dk.CheckpointError(str(target), found, "a state of tensors", fix)
    kept = {name: first.setdefault(_place(value), name) for name, value in state.items()}
    shared = {name: other for name, other in kept.items() if name != other}
    about = {"format": BARE, "shared": json.dumps(shared)}
    commit(_bare(target), seal({name: state[name] for name, other in kept.items() if name == other}, about))


def _place(value: Tensor) -> tuple[Any, ...]:
    """Say where a tensor lies: names of one tensor are written once."""
    return value.data_ptr(), tuple(value.shape), value.stride(), value.dtype, value.numel() or id(value)


def _bare(target: Path) -> Path:
    if target.name in ("", ".."):
        fix = "pass e.g. 'run/net'"
        raise dk.ConfigError("DelayTraining path", f"{str(target)!r}", "a file name without ending", fix)
    return target.with_name(target.name + ".model.safetensors")


def load_model_(net: nn.Module, path: str | Path) -> None:
    """Read what :func:`save_model_` wrote into a model that is built alike.

    Raises:
        CheckpointError: a file is missing, damaged or of another model.
    """
    target = path_of("DelayTraining path", path)
    if is_wrapped(net):
        dk.load(net, target)
        return
    weights = _bare(target)
    try:
        about, tensors = unseal(read_file(weights), str(weights), former="")  # the first ones had no digest
        shared = json.loads(about.get("shared", "{}"))
        if about.get("format") != BARE:  # written by safetensors' save_model: names of one tensor are in the header
            shared = {name: other for name, other in about.items() if other in tensors}
        given, own = tensors | {name: tensors[other] for name, other in shared.items()}, net.state_dict()
        if own.keys() != given.keys() or any(own[k].shape != given[k].shape for k in own):  # before a copy
            raise ValueError("tensors of other names or shapes")
        net.load_state_dict(given)
    except (OSError, RuntimeError, ValueError, KeyError) as problem:
        expected, fix = "the weights of this model", "load into a model that is built and wrapped alike"
        raise dk.CheckpointError(str(weights), f"{problem}", expected, fix) from problem


def lightning_callback() -> Any:
    """Return the class :class:`DelayCallback`, a callback of Lightning.

    It attaches all optimizers of the module when training starts, advances schedules after each epoch, logs the
    delays, and adds to Lightning's checkpoints what pruning remembers. Schedules need an end: ``max_epochs``,
    ``max_steps`` or ``max_time`` of the trainer; without any they stay as they are, and a warning says so.

    Raises:
        ConfigError: Lightning is not installed, or cannot be imported.

    Example:
        >>> trainer = Trainer(max_epochs=10, callbacks=[lightning_callback()()])  # doctest: +SKIP
    """
    Callback: Any = _lightning().Callback

    class DelayCallback(Callback):
        """Delays in Lightning's loop; see :func:`lightning_callback`."""

        def on_train_start(self, trainer: Any, module: Any) -> None:
            """Project delays after each step of every optimizer that holds some."""
            self.training = DelayTraining(module, trainer.optimizers)
            if progress_of(trainer) is None:
                text = "delaykit: schedules of delays and pruning need max_epochs, max_steps or max_time: they stay"
                warnings.warn(text, stacklevel=2)

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            """Advance schedules and log the delays."""
            progress = progress_of(trainer)
            if progress is not None:
                self.training.advance(progress)
            module.log_dict(self.training.log())

        def on_train_end(self, trainer: Any, module: Any) -> None:
            """Stop projecting."""
            self.training.remove()

        def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
            """Keep what pruning remembers."""
            from delaykit_lab.training.checkpoint import pruning_states

            checkpoint["delaykit_pruning"] = pruning_states(module)

        def on_load_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
            """Take it back."""
            from delaykit_lab.training.checkpoint import load_pruning_

            load_pruning_(module, checkpoint.get("delaykit_pruning", {}))

    return DelayCallback


def progress_of(trainer: Any) -> float | None:
    """Return the share of a Lightning training that is done when an epoch ends; None where it has no end.

    Args:
        trainer: with ``max_epochs`` and ``max_steps``, -1 or None where there is no such limit, and with the timer
            among its callbacks that ``max_time`` puts there: the nearest limit counts.

    Example:
        >>> from types import SimpleNamespace
        >>> progress_of(SimpleNamespace(max_epochs=4, current_epoch=0, max_steps=-1, global_step=9))
        0.25
    """
    shares = [(trainer.current_epoch + 1, trainer.max_epochs), (trainer.global_step, trainer.max_steps)]
    for timer in getattr(trainer, "callbacks", ()):
        if callable(getattr(timer, "time_remaining", None)) and (left := timer.time_remaining()) is not None:
            spent = timer.time_elapsed()
            shares.append((spent, spent + left))
    known = [done / whole for done, whole in shares if whole is not None and whole > 0]
    return min(1.0, max(known)) if known else None


def _lightning() -> Any:
    """Import Lightning under either of its names."""
    wrong: list[str] = []
    for name in ("lightning.pytorch", "pytorch_lightning"):
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as problem:
            if problem.name is None or problem.name.split(".")[0] != name.split(".")[0]:
                wrong.append(f"{name}: {problem}")
        except Exception as problem:  # whatever its own imports raise, such as a torchvision of another torch
            wrong.append(f"{name}: {type(problem).__name__}: {problem}")
    if wrong:
        found, fix = f"a Lightning that cannot be imported ({'; '.join(wrong)})", "mend what its import says"
        raise dk.ConfigError("lightning_callback", found, "one that can", fix)
    raise dk.ConfigError("lightning_callback", "no Lightning", "it", "pip install lightning")
