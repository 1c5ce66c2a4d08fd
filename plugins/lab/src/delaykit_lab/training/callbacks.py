"""What a training loop of one's own owes to delays, in one object: attach, advance, log, save and load.

:class:`DelayTraining` is for loops by hand and with accelerate; :class:`DelayCallback` for Lightning.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit_lab.methods import is_wrapped

if TYPE_CHECKING:
    from delaykit import PruningReport


class DelayTraining:
    """Keep a wrapped model's delays in their bounds and on their schedules; for bare models it does nothing.

    Args:
        net: the model, wrapped or not; the model itself, not accelerate's or DDP's wrapper of it.
        optimizer: that trains it, accelerate's prepared one or torch's own. Delays are projected after each step.

    Raises:
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

    def __init__(self, net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.net, self.wrapped = net, is_wrapped(net)
        self.handle = dk.attach(optimizer, net) if self.wrapped else None

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

    def save(self, path: str | Path) -> None:
        """Write delays and base weights in one call, see :func:`save_model_`."""
        save_model_(self.net, path)

    def load(self, path: str | Path) -> None:
        """Read what :meth:`save` wrote, see :func:`load_model_`."""
        load_model_(self.net, path)

    def remove(self) -> None:
        """Stop projecting."""
        if self.handle is not None:
            self.handle.remove()


def save_model_(net: nn.Module, path: str | Path) -> None:
    """Write a model: a wrapped one by ``dk.save`` with its base weights, a bare one to ``PATH.model.safetensors``."""
    from safetensors.torch import save_model

    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    if is_wrapped(net):
        dk.save(net, target, with_model=True)
    else:
        save_model(net, str(target.with_name(target.name + ".model.safetensors")))


def load_model_(net: nn.Module, path: str | Path) -> None:
    """Read what :func:`save_model_` wrote into a model that is built alike.

    Raises:
        CheckpointError: a file is missing or of another model.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_model

    target = Path(path)
    weights = target.with_name(target.name + ".model.safetensors")
    if is_wrapped(net):
        dk.load(net, target)
        return
    try:
        load_model(net, str(weights))
    except (OSError, RuntimeError, SafetensorError) as problem:
        expected, fix = "the weights of this model", "load into a model that is built and wrapped alike"
        raise dk.CheckpointError(str(weights), f"{problem}", expected, fix) from problem


def lightning_callback() -> Any:
    """Return the class :class:`DelayCallback`, a callback of Lightning.

    It attaches every optimizer of the module when training starts, advances schedules after each epoch, logs the
    delays, and adds to Lightning's checkpoints what pruning remembers.

    Raises:
        ConfigError: Lightning is not installed.

    Example:
        >>> trainer = Trainer(max_epochs=10, callbacks=[lightning_callback()()])  # doctest: +SKIP
    """
    try:
        from lightning.pytorch import Callback
    except ImportError:
        try:
            from pytorch_lightning import Callback
        except ImportError:
            raise dk.ConfigError("lightning_callback", "no Lightning", "it", "pip install lightning") from None

    class DelayCallback(Callback):
        """Delays in Lightning's loop; see :func:`lightning_callback`."""

        def on_train_start(self, trainer: Any, module: Any) -> None:
            """Project delays after each step of every optimizer that holds some."""
            self.training = [DelayTraining(module, optimizer) for optimizer in trainer.optimizers]

        def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
            """Advance schedules and log the delays."""
            self.training[0].advance((trainer.current_epoch + 1) / trainer.max_epochs)
            module.log_dict(self.training[0].log())

        def on_train_end(self, trainer: Any, module: Any) -> None:
            """Stop projecting."""
            for training in self.training:
                training.remove()

        def on_save_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
            """Keep what pruning remembers."""
            from delaykit_lab.training.checkpoint import pruning_states

            checkpoint["delaykit_pruning"] = pruning_states(module)

        def on_load_checkpoint(self, trainer: Any, module: Any, checkpoint: dict[str, Any]) -> None:
            """Take it back."""
            from delaykit_lab.training.checkpoint import load_pruning_

            load_pruning_(module, checkpoint.get("delaykit_pruning", {}))

    return DelayCallback
