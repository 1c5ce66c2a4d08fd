"""The kit is only worth what it catches: every law fails for some deliberately broken component or wrapping."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from delaykit import ComponentConfig, FreeDelay, Heterogeneity, PointDelay, Pruning, PruningReport
from delaykit.errors import ConfigError, DelaykitError
from delaykit.functional.reference import causal_convolution
from delaykit.kernels import Linear, Triangle
from delaykit.synapse import Engine
from delaykit.testing import ComponentConformance, kit, laws_scale, strategies, tiny_nets
from delaykit.testing.nets import input_spikes
from delaykit.wrapping import apply, retype, timing
from delaykit.wrapping.root import WrappedRoot

SLOW_LAWS = {
    "two_processes_equal_one": "shown for FreeDelay in tests/laws/test_conformance.py",
    "compiled_equals_eager": "shown for FreeDelay in tests/laws/test_conformance.py",
}


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


class TestSoundDelay(ComponentConformance):
    config = Config()
    identity_config = Config(at_zero=True)
    skip = SLOW_LAWS


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


class TestDecay(ComponentConformance):
    config = DecayConfig()
    identity_config = DecayConfig(0.0)
    skip = SLOW_LAWS


class Magnitude(Pruning):
    def step_(self, weight, progress):
        before = int((weight != 0).sum())
        count = round(0.5 * progress * weight.numel())
        weakest = weight.detach().abs().flatten().argsort(stable=True)[:count]
        weight.view(-1)[weakest] = 0.0
        kept = int((weight != 0).sum())
        return PruningReport(weight.numel(), kept, before - kept, 0)


@dataclasses.dataclass(frozen=True)
class MagnitudeConfig(ComponentConfig):
    kind: ClassVar[Any] = "pruning"
    name: ClassVar[str] = "kit-test-pruning"
    part: ClassVar[type] = Magnitude

    def build(self, site, generator=None):
        return self.part()


class TestMagnitude(ComponentConformance):
    config = MagnitudeConfig()


# ------------------------------------------------------------------------------------------- broken operators
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
    forever: ClassVar[list[Any]] = []

    def __init__(self, engine):
        super().__init__(engine)
        fits = self.forever and self.forever[0].shape[1] == engine.response.shape[1]
        self.past = self.forever if fits else []

    def step(self, x):
        if self.past and self.past[0].shape != x.shape:
            self.past.clear()
        NeverForgets.forever = self.past
        return super().step(x)


def with_tape(tape):
    return with_engine(type("Engine", (OwnEngine,), {"tape_class": tape}))


# ------------------------------------------------------------------------------------------- broken parts
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


@dataclasses.dataclass(frozen=True)
class NotJson(Config):
    ratio: Any = frozenset({1, 2})


@dataclasses.dataclass(frozen=True)
class NotTheSameJson(Config):
    pair: Any = ((1, 2), (3, 4))


MUTANTS = [
    ("causality", with_engine(Acausal)),
    ("sequence_equals_reference", with_engine(Acausal)),
    ("sequence_equals_reference", with_engine(WrongGradient)),
    ("gradcheck", FlippedSign),
    ("batch_rows_are_independent", with_engine(MixesRows)),
    ("step_equals_sequence", with_tape(ForgetfulTape)),
    ("net_equals_reference", with_tape(ForgetfulTape)),
    ("net_equals_reference", with_tape(NeverForgets)),
    ("truncated_bptt_equals_reference", with_tape(ForgetsOnDetach)),
    ("gradients_equal_reference", ForgottenParameter),
    ("optimizer_step_stays_in_bounds", ForgottenParameter),
    ("optimizer_step_stays_in_bounds", NeverProjects),
    ("identity_at_init", LateByOne),
    ("bounds_do_not_stop_learning", ClampsInForward),
    ("projection_brings_illegal_values_back", NeverProjects),
    ("same_seed_builds_the_same", GlobalRandom),
    ("schedules_keep_parameters_legal", BadSchedule),
    ("discretized_restores_exactly", NeverRounds),
    ("discretized_restores_exactly", ForgetsOutsideState),
    ("copy_trains_alone", SharedByCopies),
    ("extras_round_trip", HiddenState),
    ("connection_pickles", NoPickle),
    ("net_moves_between_dtypes", HalfOnMove),
]


def kit_for(config, identity=None, **members):
    return type("Kit", (ComponentConformance,), {"config": config, "identity_config": identity, **members})()


def run_law(kit, law, tmp_path, nets=("snntorch", "norse")):
    """Run a law on all the nets it asks for, as pytest would."""
    method = getattr(kit, f"test_{law}")
    wanted = inspect.signature(method).parameters
    cases = [{}]
    if "tiny" in wanted:
        cases = [{"tiny": net} for library in nets for net in tiny_nets(library)]
    if "library" in wanted:
        cases = [{"library": library} for library in nets]
    for k, case in enumerate(cases):
        case |= {"tmp_path": tmp_path / str(k)} if "tmp_path" in wanted else {}
        case |= {"skip_law": pytest.skip} if "skip_law" in wanted else {}
        with contextlib.suppress(pytest.skip.Exception):
            method(**case)


class Shrinks(Magnitude):
    def step_(self, weight, progress):
        report = super().step_(weight, progress)
        weight.mul_(0.999)
        return report


class Miscounts(Magnitude):
    def step_(self, weight, progress):
        report = super().step_(weight, progress)
        return dataclasses.replace(report, pruned=report.pruned + 1)


class PrunesAll(Magnitude):
    def step_(self, weight, progress):
        weight.mul_(1.0 - (progress == 1.0))
        return super().step_(weight, progress)


class PrunesOnAndOn(Magnitude):
    def step_(self, weight, progress):
        kept = int((weight != 0).sum())
        return super().step_(weight, min(1.0, progress * 0.5 + 1.1 * (1 - kept / weight.numel())))


class PrunesAtRandom(Magnitude):
    def step_(self, weight, progress):
        noise = torch.rand_like(weight)
        kept = weight.clone()
        report = super().step_(weight.mul_(noise), progress)
        weight.copy_(torch.where(weight == 0, 0.0, kept))
        return report


class FreezesZeros(Magnitude):
    def step_(self, weight, progress):
        report = super().step_(weight, progress)
        if weight.requires_grad:
            weight.register_hook(lambda grad, mask=(weight != 0).detach().clone(): grad * mask)
        return report


PRUNING_MUTANTS = [
    ("pruning_writes_zeros_only", Shrinks),
    ("pruning_writes_zeros_only", Miscounts),
    ("pruning_prunes_in_the_end", PrunesAll),
    ("pruning_twice_is_once", PrunesOnAndOn),
    ("pruning_is_deterministic", PrunesAtRandom),
    ("pruned_weights_keep_their_gradients", FreezesZeros),
]


def leave_the_root_retyped(patch):
    patch.setattr(retype, "untype_", lambda module: None)


def wrap_without_a_copy(patch):
    patch.setattr(apply, "copy_model", lambda net: net)


def load_without_a_hook(patch):
    patch.delattr(WrappedRoot, "_load_from_state_dict")


def mix_the_streams(patch):
    patch.setattr(timing, "_streams", lambda *_: 1)


def train_on_half_the_batch(patch):
    def alone(jobs, folder):
        found = []
        for job in jobs:
            net = job.tiny.build()
            apply.wrap_(net, job.rules, example=lambda job=job, net=net: job.tiny.run(net, input_spikes(4, 2)))
            net.load_state_dict(job.state)
            half = job.tiny.run(net, job.spikes[:, :2])
            (half.spikes.sum() + half.membranes.sum()).backward()
            found.append({name: p.grad for name, p in net.named_parameters() if p.requires_grad})
        return found

    patch.setattr(laws_scale, "gradients_of_two_processes", alone)


def compile_something_else(patch):
    def other(net, backend):
        twin = apply.copy_model(net)
        for parameter in twin.parameters():
            parameter.data.mul_(0.9)
        return twin

    patch.setattr(torch, "compile", other)


WRAPPING_MUTANTS = [
    ("unwrap_returns_the_same_objects", leave_the_root_retyped),
    ("wrap_leaves_the_original_bare", wrap_without_a_copy),
    ("base_checkpoint_loads_strict", load_without_a_hook),
    ("shared_module_is_wrapped_once", mix_the_streams),
    ("two_processes_equal_one", train_on_half_the_batch),
    ("compiled_equals_eager", compile_something_else),
]
CONFIG_MUTANTS = [("config_survives_json", NotJson), ("config_survives_json", NotTheSameJson)]
BROKEN = (AssertionError, RuntimeError, AttributeError, TypeError, DelaykitError)


def names(value):
    return value if isinstance(value, str) else value.__name__


@pytest.mark.parametrize(("law", "part"), MUTANTS, ids=names)
def test_broken_part_is_caught(law, part, tmp_path):
    config = config_of(part)
    with pytest.raises(BROKEN):
        run_law(kit_for(config(), config(at_zero=True)), law, tmp_path)


@pytest.mark.parametrize(("law", "config"), CONFIG_MUTANTS, ids=names)
def test_broken_config_is_caught(law, config, tmp_path):
    with pytest.raises(BROKEN):
        run_law(kit_for(config()), law, tmp_path)


@pytest.mark.parametrize(("law", "part"), PRUNING_MUTANTS, ids=names)
def test_broken_pruning_is_caught(law, part, tmp_path):
    config = dataclasses.dataclass(frozen=True)(type("Config", (MagnitudeConfig,), {"part": part}))
    with pytest.raises(AssertionError):
        run_law(kit_for(config()), law, tmp_path)


@pytest.mark.parametrize(("law", "break_it"), WRAPPING_MUTANTS, ids=names)
def test_broken_wrapping_is_caught(law, break_it, tmp_path, monkeypatch):
    kit = kit_for(Config(), Config(at_zero=True))
    break_it(monkeypatch)
    with pytest.raises(BROKEN):
        run_law(kit, law, tmp_path)


def test_a_silent_net_proves_nothing(tmp_path):
    with pytest.raises(AssertionError, match="nothing would be proved"):
        run_law(kit_for(FreeDelay("layer", max_delay=100, init=90.0)), "net_equals_reference", tmp_path)


def test_every_law_has_a_mutant():
    laws = {name.removeprefix("test_") for name in dir(ComponentConformance) if name.startswith("test_")}
    tables = (MUTANTS, CONFIG_MUTANTS, PRUNING_MUTANTS, WRAPPING_MUTANTS)
    assert laws == {law for table in tables for law, _ in table}


def test_laws_of_other_kinds_are_not_collected():
    assert kit_for(Config()).test_pruning_twice_is_once is None
    assert kit_for(MagnitudeConfig()).test_gradcheck is None
    assert kit_for(MagnitudeConfig()).test_unwrap_returns_the_same_objects is not None


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"skip": {"gradchek": "a reason that is long enough"}}, "unknown law 'gradchek'"),
        ({"skip": {"gradcheck": "slow"}}, "reason 'slow'"),
        ({"config": None}, "a component config"),
    ],
)
def test_a_skip_needs_a_law_and_a_reason(members, message):
    with pytest.raises(ConfigError, match=message):
        type("TestMine", (ComponentConformance,), {"config": Config(), **members})


@pytest.mark.parametrize("tiny", [net for library in ("snntorch", "norse") for net in tiny_nets(library)], ids=repr)
def test_bare_nets_fire_and_equal_their_second_implementation(tiny):
    net, spikes = tiny.build(), input_spikes()
    found, wanted = tiny.run(net, spikes), tiny.reference(net, spikes, tiny.bare_responses(net))
    assert 0.02 < float(found.spikes[..., :8].mean()) < 0.3 and 0.02 < float(found.spikes[..., 8:].mean()) < 0.3
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)
    one, two = (kit.gradients(kit.loss_of(record), list(net.parameters())) for record in (found, wanted))
    torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-11)
    assert all(bool(slope.any()) for slope in one)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_strategies_draw_what_the_core_accepts(data):
    site, config = data.draw(strategies.sites()), data.draw(strategies.free_delays())
    part = config.build(site, torch.Generator().manual_seed(0))
    part.check()
    delays = data.draw(strategies.delays_of(site, config.granularity))
    assert delays.shape == part.delays().shape and bool(((delays >= 0) & (delays <= 5)).all())
    spikes = data.draw(strategies.spike_trains(pre=site.pre))
    assert spikes.dtype == torch.float64 and spikes.shape[2] == site.pre and set(spikes.unique().tolist()) <= {0.0, 1.0}
