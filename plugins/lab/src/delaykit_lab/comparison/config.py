"""What makes a comparison."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import delaykit as dk
from delaykit_lab.comparison.rows import Row
from delaykit_lab.declared import check_declared
from delaykit_lab.training.config import Job, from_values
from delaykit_lab.words import nearest

OWN = {"task", "set", "model", "methods", "seed", "epochs", "lr", "delay_lr"}  # of a job, set by the comparison
EQUALS = ("parameters", "synaptic-operations", "time", "nothing")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Methods on one task, under one protocol.

    Args:
        task: name of a registered task.
        methods: names of rows, see :class:`~delaykit_lab.comparison.rows.Row`.
        set: options of the task.
        model: the network; its sizes are those of ``none``, and of the row that costs most.
        equal: what all rows but ``none`` may cost: ``parameters``, ``synaptic-operations`` or ``time`` of a training
            step; widths are searched for it. ``nothing``: all have the model's own sizes.
        budget: how much that is; None: what the dearest row costs at the model's own sizes.
        seeds: runs of each row, >= 2, on seeds 0, 1, ...
        rates: learning rates tried for each row, on all seeds; the mean validation accuracy chooses.
        delay_rate: rate of delays and the like, as a multiple of the rate of weights.
        max_delay: longest delay in steps; None: a third of a sample, 25 at most.
        epochs: of each run.
        options: of all jobs alike, e.g. ``{"batch_size": 128, "precision": "bf16"}``.

    Raises:
        ConfigError: a value is out of range, or a method is unknown or named twice.

    Example:
        >>> comparison = Comparison("moving-wave", ("none", "frozen", "dcls"), model="snn:12", max_delay=16)
        >>> [row.methods for row in comparison.rows()]
        [(), ('dcls:17,control=frozen',), ('dcls:17',)]
    """

    task: str
    methods: tuple[str, ...]
    set: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    model: str = "rsnn:32"
    equal: str = "parameters"
    budget: float | None = None
    seeds: int = 3
    rates: tuple[float, ...] = (0.003, 0.01)
    delay_rate: float = 20.0
    max_delay: int | None = None
    epochs: int = 30
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.methods, str):
            raise dk.ConfigError("methods", repr(self.methods), "a list of words", f"write [{self.methods!r}]")
        check_declared(Comparison, vars(self))
        for name in ("methods", "rates"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.equal not in EQUALS:
            found = f"{self.equal!r}{nearest(self.equal, EQUALS)}"
            raise dk.ConfigError("equal", found, f"one of {', '.join(EQUALS)}", "name one of them")
        if self.seeds < 2:
            raise dk.ConfigError("seeds", f"{self.seeds}", "at least 2: one run has no interval", "use --seeds 3")
        if not self.methods or len(set(self.methods)) < len(self.methods):
            fix = "list the methods, each once"
            raise dk.ConfigError("methods", f"{', '.join(self.methods) or 'none at all'}", "each method once", fix)
        if not self.rates or not all(math.isfinite(rate) and rate > 0 for rate in self.rates):
            raise dk.ConfigError("rates", f"{self.rates}", "positive learning rates", "e.g. --rates 0.003,0.01")
        if len(set(self.rates)) < len(self.rates):
            raise dk.ConfigError("rates", f"{self.rates}", "each rate once", "leave one of them out")
        for name in ("delay_rate", "budget", "max_delay"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise dk.ConfigError(name, f"{value}", "a finite number > 0", "correct its value")
        known = {field.name for field in dataclasses.fields(Job)} - OWN
        for name in self.options:
            if name not in known:
                expected, fix = f"one of {', '.join(sorted(known))}", "correct the name"
                raise dk.ConfigError("options", f"{name!r}{nearest(name, known)}", expected, fix)
        self.rows()
        self.job(self.rows()[0], (1,) * max(1, len(self.base_sizes())), self.rates[0], 0)

    def rows(self) -> list[Row]:
        """Return the rows; delays of up to 25 steps where ``max_delay`` is still open."""
        spec = Job(self.task, self.model).spec()
        return [Row.parse(name, spec, self.max_delay or 25) for name in self.methods]

    def base_sizes(self) -> tuple[int, ...]:
        """Return the model's own layer sizes."""
        return Job(self.task, self.model).spec().sizes

    def job(self, row: Row, sizes: tuple[int, ...], rate: float, seed: int) -> Job:
        """Return the job of one run."""
        spec = Job(self.task, self.model).spec()
        model = str(row.spec(spec, sizes if spec.sizes else ()))
        return Job(
            self.task, model, row.methods, dict(self.set), seed, self.epochs, lr=rate, delay_lr=rate * self.delay_rate,
            **self.options,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return dataclasses.asdict(self) | {"methods": list(self.methods), "rates": list(self.rates)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Comparison:
        """Read what :meth:`to_json` or a TOML file holds.

        Raises:
            ConfigError: an unknown key; the nearest one is named.
        """
        return from_values(cls, values, ("task", "methods"))
