"""Delays with one thing wrong each, and sound parts beside them: what the conformance kit must catch, and pass."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import torch
from torch import nn

from delaykit import ComponentConfig, Heterogeneity, PointDelay
from delaykit.arrivals import Linear, Triangle
from delaykit.functional.reference import causal_convolution
from delaykit.synapse import Engine


class SoundDelay(PointDelay):
    """One learned delay and spread for each input; the mutants below break one thing each."""

    granularity = "axonal"

    def __init__(self, site, generator):
        super().__init__()
        self.delay = nn.Parameter(1.0 + 3.0 * torch.rand(1, site.pre, generator=generator))
        self.register_buffer("spread", torch.tensor(1.0))

    def delays(self):
        return self.delay

    def kernel(self):
        return Triangle(self.spread)

    @torch.no_grad()
    def project_(self):
        self.delay.clamp_(0.0, 5.0)

    @torch.no_grad()
    def advance_(self, progress):
        self.spread.fill_(1.0 - progress)

    @torch.no_grad()
    def discretize_(self):
        self.delay.round_()
        self.spread.zero_()


@dataclasses.dataclass(frozen=True)
class Config(ComponentConfig):
    kind: ClassVar[Any] = "delay"
    name: ClassVar[str] = "kit-test"
    part: ClassVar[type] = SoundDelay

    at_zero: bool = False

    def build(self, site, generator=None):
        part = self.part(site, generator)
        if self.at_zero:
            part.delay.data.zero_()
            part.spread.zero_()
        return part


def config_of(part):
    return dataclasses.dataclass(frozen=True)(type("Config", (Config,), {"part": part, "__module__": __name__}))


class Decay(Heterogeneity):
    def __init__(self, site, generator):
        super().__init__()
        self.factor = nn.Parameter(0.1 + 0.5 * torch.rand(site.post, site.pre, generator=generator))

    def decay(self):
        return self.factor

    @torch.no_grad()
    def project_(self):
        self.factor.clamp_(0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class DecayConfig(ComponentConfig):
    kind: ClassVar[Any] = "heterogeneity"
    name: ClassVar[str] = "kit-test-decay"
    scale: float = 1.0

    def build(self, site, generator=None):
        part = Decay(site, generator)
        part.factor.data.mul_(self.scale)
        return part


class DoubleTape:
    """A plain list of inputs; the engine decides what is wrong with it."""

    def __init__(self, engine):
        self.engine, self.past = engine, []

    def step(self, x):
        self.past.append(x)
        return self.engine.honest(torch.stack(self.past))[-1]

    def detach(self):
        self.past = [x.detach() for x in self.past]


class OwnEngine(Engine):
    tape_class: type = DoubleTape

    def __init__(self, response, bias):
        self.response, self.bias = response, bias

    def honest(self, spikes):
        return causal_convolution(spikes, self.response) + (0.0 if self.bias is None else self.bias)

    def sequence(self, spikes):
        return self.honest(spikes)

    def tape(self):
        return self.tape_class(self)

    def rebind(self, tape):
        tape.engine = self


def with_engine(engine):
    class Part(SoundDelay):
        def engine(self, weight, bias):
            return engine(self.impulse_response(weight), bias)

    return Part


class Acausal(OwnEngine):
    def sequence(self, spikes):
        current = self.honest(spikes)
        return current + 1e-3 * torch.cat([current[1:], current[:1]])


class MixesRows(OwnEngine):
    def sequence(self, spikes):
        return self.honest(spikes - 1e-3 * spikes.mean(1, keepdim=True))


class WrongGradient(OwnEngine):
    def sequence(self, spikes):
        current = self.honest(spikes)
        return 2 * current.detach() - current


class ForgetfulTape(DoubleTape):
    def step(self, x):
        self.past = self.past[-2:]
        return super().step(x)


class ForgetsOnDetach(DoubleTape):
    def detach(self):
        self.past = []


class NeverForgets(DoubleTape):
    forever: ClassVar[dict[Any, Any]] = {}

    def __init__(self, engine):
        super().__init__(engine)
        self.past = self.forever.setdefault(engine.response.shape[:2], [])

    def step(self, x):
        if self.past and self.past[0].shape != x.shape:
            self.past.clear()
        return super().step(x)


def with_tape(tape):
    return with_engine(type("Engine", (OwnEngine,), {"tape_class": tape}))


class LateByOne(SoundDelay):
    def delays(self):
        return self.delay + 1.0


class FlippedSign(SoundDelay):
    def delays(self):
        return 2 * self.delay.detach() - self.delay


class ForgottenParameter(SoundDelay):
    def __init__(self, site, generator):
        super().__init__(site, generator)
        self.unused = nn.Parameter(torch.ones(3))


class ClampsInForward(SoundDelay):
    def delays(self):
        return self.delay.clamp(0.0, 5.0)

    def project_(self):
        pass


class NeverProjects(SoundDelay):
    def project_(self):
        pass


class GlobalRandom(SoundDelay):
    def __init__(self, site, generator):
        super().__init__(site, None)


class BadSchedule(SoundDelay):
    def advance_(self, progress):
        self.spread.fill_(1.0 / (1.0 - progress) if progress < 1 else float("nan"))


class NeverRounds(SoundDelay):
    def discretize_(self):
        self.spread.zero_()


class ForgetsOutsideState(SoundDelay):
    shape = Triangle

    def kernel(self):
        return Linear() if self.shape is Linear else Triangle(self.spread)

    def discretize_(self):
        super().discretize_()
        self.shape = Linear


class SharedByCopies(SoundDelay):
    def __deepcopy__(self, memo):
        return self


class HiddenState(SoundDelay):
    count: ClassVar[int] = 0

    def __init__(self, site, generator):
        super().__init__(site, generator)
        HiddenState.count += 1
        self.offset = 0.01 * HiddenState.count

    def delays(self):
        return self.delay + self.offset


class NoPickle(SoundDelay):
    def __init__(self, site, generator):
        super().__init__(site, generator)
        self.scale = lambda: 1.0


class HalfOnMove(SoundDelay):
    def _apply(self, fn, recurse=True):
        super()._apply(fn, recurse)
        self.delay.data = self.delay.data.half().to(self.delay.dtype)
        return self


class LaterAndLater(SoundDelay):
    """Right in the first runs, wrong in those to come."""

    def __init__(self, site, generator):
        super().__init__(site, generator)
        self.asked = 0

    def delays(self):
        self.asked += 1
        return self.delay + (0.5 if self.asked > 8 else 0.0)


class NoGranularity(SoundDelay):
    granularity = "banana"


class WrongGranularity(SoundDelay):
    granularity = "layer"


class NotANumber(SoundDelay):
    def kernel(self):
        return Triangle(self.spread * float("nan"))


class NaNTaps(SoundDelay):
    def taps(self):
        taps = super().taps()
        return taps._replace(value=taps.value * float("inf"))


class LateResponse(SoundDelay):
    def impulse_response(self, weight):
        return nn.functional.pad(super().impulse_response(weight), (1, 0))


class ShortMemory(SoundDelay):
    def longest(self):
        return 2


class Raises(SoundDelay):
    def kernel(self):
        return [Triangle(self.spread)][1]


@dataclasses.dataclass(frozen=True)
class NotJson(Config):
    ratio: Any = frozenset({1, 2})


@dataclasses.dataclass(frozen=True)
class NotTheSameJson(Config):
    pair: Any = ((1, 2), (3, 4))


MUTANTS = [
    ("causality", with_engine(Acausal), "before a change of input"),
    ("sequence_equals_reference", with_engine(Acausal), "^sequence operator"),
    ("sequence_equals_reference", with_engine(WrongGradient), "^gradient of the sequence operator"),
    ("gradcheck", FlippedSign, "Jacobian mismatch"),
    ("asking_changes_nothing", LaterAndLater, "another one after a few runs|^batch of"),
    ("sequence_equals_reference", NoGranularity, r"NoGranularity\.granularity: found 'banana'"),
    ("sequence_equals_reference", WrongGranularity, r"WrongGranularity\.delays\(\): found shape \(1, 5\)"),
    ("sequence_equals_reference", NotANumber, r"NotANumber\.kernel\(\): found a NaN or infinite spread"),
    ("sequence_equals_reference", NaNTaps, r"NaNTaps\.taps\(\): found NaN or infinite numbers"),
    ("sequence_equals_reference", Raises, r"Raises\.kernel\(\): found IndexError"),
    ("sequence_equals_reference", LateResponse, "^sequence operator"),
    ("longest_is_the_longest", ShortMemory, r"longest\(\) says 2"),
    ("batch_rows_are_independent", with_engine(MixesRows), "rows run alone"),
    ("step_equals_sequence", with_tape(ForgetfulTape), "^step operator"),
    ("net_equals_reference", with_tape(ForgetfulTape), "first sequence"),
    ("net_equals_reference", with_tape(NeverForgets), "repeated sequence"),
    ("truncated_bptt_equals_reference", with_tape(ForgetsOnDetach), "segment 1"),
    ("gradients_equal_reference", ForgottenParameter, "no gradient reaches new parameters"),
    ("optimizer_step_stays_in_bounds", ForgottenParameter, "did not move"),
    ("optimizer_step_stays_in_bounds", NeverProjects, "a delay of -"),
    ("identity_at_init", LateByOne, "differ from the bare net"),
    ("bounds_do_not_stop_learning", ClampsInForward, "at the lower bound"),
    ("projection_brings_illegal_values_back", NeverProjects, "a delay of -"),
    ("same_seed_builds_the_same", GlobalRandom, "global generator"),
    ("schedules_keep_parameters_legal", BadSchedule, "not finite at progress"),
    ("discretized_restores_exactly", NeverRounds, "not whole numbers"),
    ("discretized_restores_exactly", ForgetsOutsideState, "computes something else now"),
    ("copy_trains_alone", SharedByCopies, "shares parameters"),
    ("extras_round_trip", HiddenState, "the loaded net differs"),
    ("connection_pickles", NoPickle, "lambda"),
    ("net_moves_between_dtypes", HalfOnMove, "after float"),
]
