"""How far a memory reaches: one setting varied at a time, and the tests of its robustness."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from time import process_time
from typing import Any

import torch
from torch import Tensor

from delaykit import checks
from delaykit.errors import ConfigError
from delaykit_motifs.dynamics import MotifDynamics
from delaykit_motifs.hebb import hebbian, ridge
from delaykit_motifs.memory import MotifMemory
from delaykit_motifs.metrics import f1, f1_per_pattern
from delaykit_motifs.noise import flip_cue, silence, truncate_cue
from delaykit_motifs.patterns import bernoulli_patterns, check_patterns, evidence_of, evidence_patterns

NOISES = ("flip", "truncate", "background", "silence")


@checks.annotated
@dataclasses.dataclass(frozen=True)
class Setting:
    """Describe one memory experiment; plain numbers, so that results can be written next to it.

    Args:
        neurons: N.
        time: length of a pattern T, in steps, the cue included.
        patterns: M.
        depth: number of delays D, which is also the length of the cue.
        rate: spikes a neuron and step, p_A.
        theta: threshold.
        beta: leak.
        reset: ``hard`` or ``subtractive``.
        refractory: steps between two spikes of a neuron; 1: Bernoulli patterns.
        rule: ``hebb`` or ``ridge``.
        normalise: see :func:`~delaykit_motifs.hebb.hebbian`.

    Raises:
        ConfigError: an unknown rule, or a pattern that is no longer than its cue.
    """

    neurons: int = 256
    time: int = 500
    patterns: int = 8
    depth: int = 41
    rate: float = 2e-3
    theta: float = 0.65
    beta: float = 0.7
    reset: str = "hard"
    refractory: int = 1
    rule: str = "hebb"
    normalise: str | None = "context"

    def __post_init__(self) -> None:
        if self.rule not in ("hebb", "ridge"):
            raise ConfigError("Setting.rule", repr(self.rule), "'hebb' or 'ridge'", "spell one of these")
        if self.time <= self.depth:
            found = f"time {self.time} with depth {self.depth}"
            raise ConfigError("Setting.time", found, "patterns longer than their cue", "raise time")

    @property
    def dynamics(self) -> MotifDynamics:
        """The neurons."""
        return MotifDynamics(self.theta, self.beta, self.reset)  # type: ignore[arg-type]

    def draw(self, seed: int) -> Tensor:
        """Draw the patterns, bool ``(time, pattern, neuron)``."""
        generator = torch.Generator().manual_seed(seed)
        if self.refractory == 1:
            return bernoulli_patterns(self.time, self.patterns, self.neurons, self.rate, generator)
        shape = (self.time, self.patterns, self.neurons)
        evidence = torch.tensor(evidence_of(self.rate, self.refractory)).expand(shape)
        return evidence_patterns(evidence, self.refractory, generator)

    def write(self, patterns: Tensor) -> MotifMemory:
        """Make the memory of these patterns by the rule."""
        if self.rule == "ridge":
            return MotifMemory(ridge(patterns, self.depth, self.dynamics), self.dynamics)
        taps = hebbian(patterns, self.depth, self.dynamics, self.normalise)  # type: ignore[arg-type]
        return MotifMemory(taps, self.dynamics)


@dataclasses.dataclass(frozen=True)
class Point:
    """One result: the value of what was varied, the seed, scores and CPU seconds."""

    value: float
    seed: int
    f1: float
    worst: float
    build_s: float
    recall_s: float

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dataclasses.asdict(self)


@checks.annotated
def sweep(
    base: Setting,
    field: str,
    values: Sequence[Any],
    seeds: Sequence[int] = (0,),
    prepare: Callable[[MotifMemory, Tensor], None] | None = None,
) -> Iterator[Point]:
    """Vary one field of a setting; yields each result as soon as it is there, so that a caller can show progress.

    Args:
        base: all other fields.
        field: name of the field, e.g. ``depth``, ``time``, ``rate``, ``patterns``, ``neurons`` or ``theta``.
        values: of the field.
        seeds: of the patterns.
        prepare: trains the memory further, called with it and the patterns; None: no training.

    Yields:
        A :class:`Point` for each value and seed.

    Raises:
        ConfigError: no such field.
    """
    names = [f.name for f in dataclasses.fields(base)]
    if field not in names:
        raise ConfigError("sweep.field", repr(field), f"one of {names}", "name a field of Setting")
    for value in values:
        setting = dataclasses.replace(base, **{field: value})
        for seed in seeds:
            yield _measure(setting, value, seed, prepare)


def _measure(setting: Setting, value: float, seed: int, prepare: Callable[[MotifMemory, Tensor], None] | None) -> Point:
    patterns = setting.draw(seed)
    start = process_time()
    memory = setting.write(patterns)
    if prepare is not None:
        prepare(memory, patterns)
    built = process_time()
    spikes = memory.recall(patterns[: setting.depth], setting.time).spikes
    done = process_time()
    worst = float(f1_per_pattern(spikes, patterns, setting.depth).min())
    return Point(value, seed, f1(spikes, patterns, setting.depth), worst, built - start, done - built)


@checks.annotated
def robustness(
    memory: MotifMemory, patterns: Tensor, noise: str, level: float, generator: torch.Generator | None = None
) -> float:
    """Recall under one kind of noise and return the pooled F1 behind the cue.

    Args:
        memory: that holds the patterns.
        patterns: spikes ``(time, pattern, neuron)``.
        noise: ``flip`` (share of cue spikes that are moved elsewhere), ``truncate`` (share of the cue that is kept, its
            newest steps), ``background`` (rate of spikes forced while the network runs free; they are not counted as
            errors where they are forced), ``silence`` (share of neurons that never fire, counted as misses).
        level: see above.
        generator: source of randomness.

    Raises:
        ConfigError: an unknown kind of noise.
    """
    check_patterns("robustness patterns", patterns, memory.neurons)
    cue, forced, mute = patterns[: memory.depth], None, None
    if noise == "flip":
        cue = flip_cue(cue, level, generator)
    elif noise == "truncate":
        cue = truncate_cue(cue, level)
    elif noise == "background":
        time, count, neurons = patterns.shape
        forced = bernoulli_patterns(time, count, neurons, level, generator)
        forced[: memory.depth] = False
    elif noise == "silence":
        mute = silence(memory.neurons, level, generator).to(patterns.device)
    else:
        raise ConfigError("robustness.noise", repr(noise), f"one of {NOISES}", "spell one of these")
    spikes = memory.recall(cue, len(patterns), noise=forced, mute=mute).spikes
    if forced is not None:
        spikes = spikes & ~(forced & (patterns == 0))
    return f1(spikes, patterns, memory.depth)
