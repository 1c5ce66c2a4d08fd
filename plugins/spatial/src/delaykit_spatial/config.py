"""What users write: ``Spatial(dims=2, pre="input", post="hidden")``."""

from __future__ import annotations

import dataclasses
import math
import pkgutil
import re
from typing import Any, ClassVar, Literal

import numpy as np
import torch

from delaykit import ComponentConfig, ConfigError, Site, checks
from delaykit.functional.inputs import initial_values
from delaykit.interfaces import ESTIMATORS, Estimator
from delaykit_spatial.geometry import Metric, metric_named, name_of
from delaykit_spatial.starts import LEAST_DIMS, STARTS, as_table

NAME = re.compile(r"\w[\w.:/ -]{0,99}")  # safe in files, tables and spreadsheets


@dataclasses.dataclass(frozen=True)
class Spatial(ComponentConfig):
    r"""Describe delays that are distances between neurons, whose positions are learned.

    ``d_ms[post, pre] = (1 + (eps / 2) (1 + tanh E)) sqrt(floor + |r_post - r_pre|^2) / velocity``

    A population has one set of positions, shared by all connections that name it: D N numbers place N neurons, where
    free delays take one for each synapse. ``d_ms`` is the total latency. Feed-forward, d = d_ms / dt_ms steps;
    recurrent, a spike arrives one step later anyhow, so d = max(d_ms / dt_ms - 1, 0), the bound being in the value and
    not in the gradient. Depth follows the largest delay there is: nothing wraps around.

    Args:
        dims: number of coordinates, 1, 2, 3, ...; 0: no positions, every delay is the floor; ``math.inf`` (or
            ``"inf"``): a free delay for each synapse, with no geometry. Mixed dims on one population are refused;
            0 and inf have no positions to share.
        pre: population that sends; default: that of ``post`` on a recurrent connection, else one of its own.
        post: population that receives; default: the neuron that the connection drives, so that a neuron's input and
            recurrent connection share its positions. A connection from a population onto itself counts as recurrent.
        velocity: length units per ms, > 0; with 1, positions are in ms.
        dt_ms: length of a step; default: what the library says (Norse), else 1 ms.
        floor: added to the squared distance, in squared length units, >= 0.
        tortuosity: eps >= 0; a synapse's path is longer than the distance, up to 1 + eps times, by a learned E of its
            own (from 0, i.e. half way).
        metric: ``euclidean``, another registered name, or a function as in :mod:`delaykit_spatial.geometry`. A
            function without a registered name cannot be saved.
        init: first positions of ``post``: ``normal``, ``line``, ``circle``, ``two_circles``, ``grid`` or a nested list
            (neurons, dims); default: those of the population, if an earlier connection has it, else ``normal``. With
            dims = inf: ``normal`` or a nested list (post, pre) of lengths. Where all neurons that are connected start
            on one line or plane they stay on it, for by symmetry no slope leads out.
        pre_init: the same for ``pre``.
        scale: size of the start in length units, >= 0; default 20 (1 with dims = inf).
        mean: mean of the normal start with dims = inf.
        max_ms: longest total latency; longer ones are clipped in the value, not in the gradient. None: no bound.
        learn: whether positions (and E) are trained.
        self_connections: let a recurrent neuron hear itself. By default it does not: the diagonal of the weight keeps
            its values, but nothing passes through it, and no gradient.
        estimator: ``interp``: surrogate gradient and interpolation between steps; ``exact``: event-based gradient,
            where the neuron has a synaptic current; ``none``: delays get no gradient.

    Raises:
        ConfigError: a value is of the wrong type or out of range.

    Example:
        >>> Spatial(2, pre="input", post="hidden", velocity=0.5).to_json()["post"]
        'hidden'

    Reference: Landsmeer, Movahedin et al. 2025, Spatial Spiking Neural Networks. Different here: the tortuous path is
    never shorter than the distance (the printed equation has a factor 1/2 too much), delays longer than the published
    ring buffer arrive late instead of early, and max_ms.
    """

    kind: ClassVar[Literal["delay"]] = "delay"
    name: ClassVar[str] = "spatial"
    initial: ClassVar[tuple[str, ...]] = ("init", "pre_init", "scale", "mean")

    dims: int | float | str = 2
    _: dataclasses.KW_ONLY
    pre: str | None = None
    post: str | None = None
    velocity: float = 1.0
    dt_ms: float | None = None
    floor: float = 0.01
    tortuosity: float = 0.0
    metric: str | Metric = "euclidean"
    init: Any = None
    pre_init: Any = None
    scale: float | None = None
    mean: float = 8.0
    max_ms: float | None = None
    learn: bool = True
    self_connections: bool = False
    estimator: Estimator = "interp"

    def __post_init__(self) -> None:
        for field in ("dims", "velocity", "dt_ms", "floor", "tortuosity", "scale", "mean", "max_ms"):
            if isinstance(value := getattr(self, field), np.number):  # JSON holds plain numbers
                object.__setattr__(self, field, value.item())
        object.__setattr__(self, "dims", _dims(self.dims))
        checks.number("Spatial.velocity", self.velocity, above=0.0)
        checks.number("Spatial.floor", self.floor, least=0.0)
        checks.number("Spatial.tortuosity", self.tortuosity, least=0.0)
        checks.number("Spatial.mean", self.mean)
        for field in ("dt_ms", "max_ms"):
            if getattr(self, field) is not None:
                checks.number(f"Spatial.{field}", getattr(self, field), above=0.0)
        if self.scale is not None:
            checks.number("Spatial.scale", self.scale, least=0.0)
        for field in ("learn", "self_connections"):
            checks.flag(f"Spatial.{field}", getattr(self, field))
        checks.choice("Spatial.estimator", self.estimator, ESTIMATORS)
        for field in ("pre", "post"):
            name = getattr(self, field)
            if name is not None and not (isinstance(name, str) and NAME.fullmatch(name)):
                expected = "a name of letters, digits, _ . : / - and spaces that begins with a letter, digit or _"
                raise ConfigError(f"Spatial.{field}", repr(name)[:120], expected, "correct the name")
        if self.tortuosity > 0 and not self.has_positions:
            found = f"{self.tortuosity:g} with dims={self.dims}"
            raise ConfigError("Spatial.tortuosity", found, "0", "a path can only be longer than a distance")
        self._check_metric()
        for field in ("init", "pre_init"):
            self._check_start(field)

    def _check_metric(self) -> None:
        if isinstance(self.metric, str):
            metric_named(self.metric)
        elif not callable(self.metric):
            expected = "a registered name or a function (r_post, r_pre) -> squared distance"
            fix = "name one of them, or call register_metric first"
            raise ConfigError("Spatial.metric", repr(self.metric), expected, fix)

    def _check_start(self, field: str) -> None:
        start = getattr(self, field)
        if isinstance(start, (torch.Tensor, np.ndarray)):  # JSON holds nested lists
            start = initial_values(f"Spatial.{field}", start, STARTS)
            object.__setattr__(self, field, start)
        if start is None or start == "normal":
            return
        where = f"Spatial.{field}"
        if isinstance(start, str):
            if start not in STARTS:
                fix = "name one of them, or give positions"
                raise ConfigError(where, repr(start), f"one of {', '.join(STARTS)}, or a nested list of positions", fix)
            if not self.has_positions or self.dims < LEAST_DIMS[start]:  # type: ignore[operator]
                fix = "raise dims, or choose another start"
                raise ConfigError(where, f"{start!r} with dims={self.dims}", f"dims >= {LEAST_DIMS[start]}", fix)
            return
        table = as_table(start, where)
        fits = table.shape[1] == self.dims if self.has_positions else self.dims == math.inf and field == "init"
        if not fits:
            found = f"places of shape {tuple(table.shape)} with dims={self.dims}"
            fix = "give positions that fit dims"
            raise ConfigError(where, found, "one column for each dimension" if self.has_positions else "no places", fix)
        object.__setattr__(self, field, table.tolist() if not isinstance(start, list) else start)

    @property
    def has_positions(self) -> bool:
        """Tell whether neurons have positions: 0 < dims < inf."""
        return 0 < self.dims < math.inf  # type: ignore[operator]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values; infinite dims become ``"inf"``, a metric its registered name.

        Raises:
            ConfigError: the metric has no registered name.
        """
        name = name_of(self.metric)
        if name is None:
            fix = "call delaykit_spatial.register_metric('a name', your_metric), here and where the file is loaded"
            raise ConfigError(
                "Spatial.metric", f"{self.metric!r}, a function without a name", "a registered metric", fix
            )
        out = super().to_json()
        return out | {"metric": name, "dims": "inf" if self.dims == math.inf else self.dims}

    def build(self, site: Site, generator: torch.Generator | None = None) -> Any:
        """Make the delays of one connection; random positions come from ``generator``."""
        # by its name: the part knows its config, not the other way round
        return pkgutil.resolve_name("delaykit_spatial.delay:SpatialDelay")(self, site, generator)


def _dims(dims: Any) -> int | float:
    if isinstance(dims, str) and dims == "inf":
        return math.inf
    whole = isinstance(dims, (int, float)) and not isinstance(dims, bool) and (dims == math.inf or dims % 1 == 0)
    if not whole or dims < 0 or 2**31 < dims < math.inf:
        expected, fix = "a whole number >= 0, or math.inf for a free delay each synapse", "pass e.g. dims=2"
        raise ConfigError("Spatial.dims", checks.shown(dims), expected, fix)
    return math.inf if dims == math.inf else int(dims)
