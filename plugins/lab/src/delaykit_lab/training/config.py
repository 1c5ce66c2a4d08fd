"""What makes a run, in one frozen value that is checked when it is made and goes to JSON and TOML."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

import delaykit as dk
from delaykit.sealed import read_file
from delaykit_lab.declared import check_declared, names_of
from delaykit_lab.methods import Method, with_estimator
from delaykit_lab.models.networks import ModelSpec
from delaykit_lab.task import Task
from delaykit_lab.training.augment import Augment
from delaykit_lab.words import nearest

SCHEDULERS = ("CosineAnnealingLR", "OneCycleLR", "StepLR", "ExponentialLR", "ConstantLR")
OPTIMIZERS = ("Adam", "AdamW", "SGD", "RAdam", "NAdam", "RMSprop")
PRECISIONS = ("no", "bf16")
HIGHEST = 1e30  # of rates: what optimizers make of one, and schedules and delays of it, stays a number of float32
Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True)
class Job:
    """One training: a task, a network, methods, and how it is trained.

    Args:
        task: name of a registered task.
        set: options of the task, e.g. ``{"path": "data", "dt_ms": 10}``.
        model: ``rsnn:256,256``, see :class:`~delaykit_lab.models.networks.ModelSpec`.
        methods: ``delrec:axonal,max_delay=40``, see :class:`~delaykit_lab.methods.Method`; none: a plain network.
        seed: of weights, delays, order of samples, augmentation and, where the task draws them, of samples.
        epochs: passes over the training set, >= 1.
        batch_size: samples a step over all processes, >= 1.
        lr: learning rate of weights, > 0.
        delay_lr: of delays and the like; None: 50 times ``lr`` (Queant et al. 2025).
        weight_decay: of weights, >= 0.
        clip: largest norm of the gradient; None: not clipped.
        optimizer: class of ``torch.optim``.
        scheduler: class of ``torch.optim.lr_scheduler``, stepped once an epoch.
        scheduler_options: of that class, e.g. ``{"step_size": 10}``.
        precision: ``no`` (float32) or ``bf16`` under autocast; delays stay float32.
        estimator: of all delays, ``interp``, ``exact`` or ``none``; None: the methods' own.
        rounding: of all delays, e.g. ``straight-through``; None: the methods' own.
        augment: ``shift=4,drop=0.1``, see :class:`~delaykit_lab.training.augment.Augment`.

    Raises:
        ConfigError: a value is out of range; names have the nearest one beside them.

    Example:
        >>> Job("moving-wave", "snn:24", ("free:synaptic,max_delay=16",), epochs=2).to_json()["epochs"]
        2
    """

    task: str
    model: str
    methods: tuple[str, ...] = ()
    set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seed: int = 0
    epochs: int = 30
    batch_size: int = 64
    lr: float = 1e-2
    delay_lr: float | None = None
    weight_decay: float = 1e-5
    clip: float | None = 1.0
    optimizer: str = "AdamW"
    scheduler: str = "CosineAnnealingLR"
    scheduler_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    precision: str = "no"
    estimator: str | None = None
    rounding: str | None = None
    augment: str = ""

    def __post_init__(self) -> None:
        if isinstance(self.methods, str):
            raise dk.ConfigError("methods", repr(self.methods), "a list of words", f"write [{self.methods!r}]")
        check_declared(Job, vars(self))
        if not -(2**63) <= self.seed < 2**63:
            raise dk.ConfigError("seed", f"{self.seed}", "a whole number of 64 bits", "take a smaller one")
        object.__setattr__(self, "methods", tuple(self.methods))
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise dk.ConfigError(name, repr(getattr(self, name)), "a whole number >= 1", "correct its value")
        for name, least in (("lr", None), ("delay_lr", None), ("clip", None), ("weight_decay", 0.0)):
            value = getattr(self, name)
            if value is None and name in ("delay_lr", "clip"):
                continue
            most = math.inf if name == "clip" else HIGHEST
            if not math.isfinite(value) or value > most or (value < 0 if least is not None else value <= 0):
                limit = f", <= {most:g}" if most < math.inf else ""
                expected, fix = f"a finite number {'>= 0' if least is not None else '> 0'}{limit}", "correct its value"
                raise dk.ConfigError(name, repr(value), expected, fix)
        for name, choices in (("optimizer", OPTIMIZERS), ("scheduler", SCHEDULERS), ("precision", PRECISIONS)):
            if getattr(self, name) not in choices:
                found = f"{getattr(self, name)!r}{nearest(str(getattr(self, name)), choices)}"
                raise dk.ConfigError(name, found, f"one of {', '.join(choices)}", "name one of them")
        self.spec()
        self.parsed()
        Augment.parse(self.augment)

    def spec(self) -> ModelSpec:
        """Return the model that ``model`` names."""
        return ModelSpec.parse(self.model)

    def parsed(self) -> list[Method]:
        """Return the methods, with ``estimator`` and ``rounding`` set."""
        return with_estimator([Method.parse(word) for word in self.methods], self.estimator, self.rounding)

    def make_task(self) -> Task:
        """Make the task that ``task`` and ``set`` name.

        Raises:
            UnknownNameError: no task has that name.
            ConfigError: the task has no such option, or it is out of range.
        """
        return make_task(self.task, self.set)

    def make_scheduler(self, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Make the scheduler, one step an epoch.

        Raises:
            ConfigError: the class does not take these options, or makes rates of them that are none.
        """
        options = dict(self.scheduler_options)
        if self.scheduler == "CosineAnnealingLR":
            options = {"T_max": self.epochs} | options
        elif self.scheduler == "OneCycleLR":
            rates = [group["lr"] for group in optimizer.param_groups]
            options = {"total_steps": self.epochs + 1, "max_lr": rates} | options
        elif self.scheduler == "ConstantLR":
            options = {"factor": 1.0} | options
        make = getattr(torch.optim.lr_scheduler, self.scheduler)
        try:
            _try(lambda trial: make(trial, **options), optimizer, self.epochs)
            return make(optimizer, **options)
        except (TypeError, ValueError, ArithmeticError, RuntimeError) as problem:
            fix = "see torch.optim.lr_scheduler; e.g. --scheduler StepLR,step_size=10"
            raise dk.ConfigError(f"scheduler {self.scheduler}", f"{options} ({problem})", "its options", fix) from None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dataclasses.asdict(self) | {"methods": list(self.methods)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Job:
        """Read what :meth:`to_json` or a TOML file holds.

        Raises:
            ConfigError: an unknown key; the nearest one is named.
        """
        return from_values(cls, values, ("task", "model"))


def _try(make: Any, optimizer: torch.optim.Optimizer, epochs: int) -> None:
    """Go through all epochs of a schedule on an optimizer of nothing: some options fail at a later step only."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": group["lr"]} for group in optimizer.param_groups]
    trial = torch.optim.SGD(groups, momentum=0.5)
    scheduler = make(trial)
    for epoch in range(epochs + 1):
        rates = [float(group["lr"]) for group in trial.param_groups]
        if not all(math.isfinite(rate) and 0 <= rate <= 1e4 * HIGHEST for rate in rates):
            raise ValueError(f"learning rates {rates}")
        if epoch < epochs:
            trial.step()
            scheduler.step()


def from_values(
    cls: type[Config], values: Mapping[str, Any], needed: Sequence[str] = (), also: Sequence[str] = ()
) -> Config:
    """Make a config of plain values, as JSON and TOML files hold them.

    Args:
        cls: a dataclass.
        values: its fields by name.
        needed: fields that must be there.
        also: what else may stand in the same file, for messages.

    Raises:
        ConfigError: an unknown key, the nearest one is named; a needed one that is missing; a value of another type.
    """
    known = names_of(cls)
    for name in values:
        if name not in known:
            fix = "correct the key, or leave it out"
            there = [*known, *also]
            raise dk.ConfigError("config", f"key {name!r}{nearest(name, there)}", f"one of {', '.join(there)}", fix)
    for name in needed:
        if name not in values:
            raise dk.ConfigError("config", f"no {name}", f"a value for {name}", f"give --{name}")
    return cls(**values)


def make_task(name: str, options: Mapping[str, Any]) -> Task:
    """Make a registered task; unknown names and options are answered with the nearest ones."""
    kind: Any = dk.resolve("task", name)
    known = names_of(kind)
    for option in options:
        if option not in known:
            found = f"option {option!r}{nearest(option, known)}"
            raise dk.ConfigError(f"task {name}", found, f"one of {', '.join(known)}", "use --set NAME=VALUE")
    try:
        return kind(**options)
    except TypeError as problem:
        words = str(problem).partition("()")[2].strip() or str(problem)
        raise dk.ConfigError(f"task {name}", words, f"options of {kind.__name__}", "use --set path=FOLDER") from None


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: it is missing or no TOML.
    """
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        import tomli as tomllib  # type: ignore[no-redef, import-not-found]
    try:
        return tomllib.loads(read_file(path).decode())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        fix = "correct the file"
        raise dk.ConfigError(str(path), f"a file that cannot be read ({problem})", "a TOML file", fix) from None
