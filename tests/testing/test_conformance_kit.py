"""The kit is only worth what it catches: every law fails for some deliberately broken component or wrapping."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from delaykit import FreeDelay, synapse
from delaykit.attaching.root import WrappedRoot
from delaykit.errors import ConfigError, DelaykitError
from delaykit.planning import timing
from delaykit.testing import ComponentConformance, kit, laws_scale, strategies, tiny_nets
from delaykit.testing.nets import input_spikes
from delaykit.wrapping import apply
from tests.testing.conformance_mutants import (
    MUTANTS,
    Config,
    DecayConfig,
    NotJson,
    NotTheSameJson,
    config_of,
)
from tests.testing.pruning_mutants import PRUNING_MUTANTS, MagnitudeConfig

SLOW_LAWS = {
    "two_processes_equal_one": "shown for FreeDelay in tests/testing/test_conformance.py",
    "compiled_equals_eager": "shown for FreeDelay in tests/testing/test_conformance.py",
    "compiled_sequences_equal_eager": "shown for FreeDelay in tests/testing/test_conformance.py",
}


class TestSoundDelay(ComponentConformance):
    config = Config()
    identity_config = Config(at_zero=True)
    skip = SLOW_LAWS


class TestDecay(ComponentConformance):
    config = DecayConfig()
    identity_config = DecayConfig(0.0)
    skip = SLOW_LAWS


class TestMagnitude(ComponentConformance):
    config = MagnitudeConfig()


def kit_for(config, identity=None, **members):
    return type("Kit", (ComponentConformance,), {"config": config, "identity_config": identity, **members})()


def run_law(kit, law, tmp_path, nets=("snntorch", "norse")):
    """Run a law on all the nets it asks for, as pytest would."""
    method = getattr(kit, f"test_{law}")
    wanted = inspect.signature(method).parameters
    cases = [{}]
    if "tiny" in wanted:
        speaks_of = method.speaks_of or (lambda net, sites: True)
        every = [net for library in nets for net in tiny_nets(library)]
        cases = [{"tiny": net} for net in every if speaks_of(net, kit.rules(net, kit.config))]
    if "library" in wanted:
        cases = [{"library": library} for library in nets]
    for k, case in enumerate(cases):
        case |= {"tmp_path": tmp_path / str(k)} if "tmp_path" in wanted else {}
        case |= {"skip_law": pytest.skip} if "skip_law" in wanted else {}
        with contextlib.suppress(pytest.skip.Exception):
            method(**case)


def leave_the_root_retyped(patch):
    patch.setattr(apply, "untype_", lambda module: None)


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


def take_parameters_of_any_size(patch):
    patch.setattr(synapse, "check_sizes", lambda where, part: None)


WRAPPING_MUTANTS = [
    ("unwrap_returns_the_same_objects", leave_the_root_retyped, "are not what they were"),
    ("wrap_leaves_the_original_bare", wrap_without_a_copy, "changed the original"),
    ("base_checkpoint_loads_strict", load_without_a_hook, "Missing key"),
    ("shared_module_is_wrapped_once", mix_the_streams, "between two calls of this connection"),
    ("two_processes_equal_one", train_on_half_the_batch, "gradient of snntorch-loop"),
    ("compiled_equals_eager", compile_something_else, "compiled sequence"),
    ("compiled_sequences_equal_eager", compile_something_else, "compiled sequence"),
    ("replaced_parameters_are_told", take_parameters_of_any_size, "or its size is not in"),
]
CONFIG_MUTANTS = [
    ("config_survives_json", NotJson, "not JSON serializable"),
    ("config_survives_json", NotTheSameJson, "came back from JSON as"),
]
BROKEN = (AssertionError, RuntimeError, AttributeError, TypeError, DelaykitError)


def names(value):
    return value if isinstance(value, str) else value.__name__.lower()


@pytest.mark.parametrize(("law", "part", "message"), MUTANTS, ids=names)
def test_broken_part_is_caught(law, part, message, tmp_path):
    config = config_of(part)
    with pytest.raises(BROKEN, match=message):
        run_law(kit_for(config(), config(at_zero=True)), law, tmp_path)


@pytest.mark.parametrize(("law", "config", "message"), CONFIG_MUTANTS, ids=names)
def test_broken_config_is_caught(law, config, message, tmp_path):
    with pytest.raises(BROKEN, match=message):
        run_law(kit_for(config()), law, tmp_path)


@pytest.mark.parametrize(("law", "part", "message"), PRUNING_MUTANTS, ids=names)
def test_broken_pruning_is_caught(law, part, message, tmp_path):
    config = dataclasses.dataclass(frozen=True)(type("Config", (MagnitudeConfig,), {"part": part}))
    with pytest.raises(AssertionError, match=message):
        run_law(kit_for(config()), law, tmp_path)


@pytest.mark.parametrize(("law", "break_it", "message"), WRAPPING_MUTANTS, ids=names)
def test_broken_wrapping_is_caught(law, break_it, message, tmp_path, monkeypatch):
    kit = kit_for(Config(), Config(at_zero=True))
    break_it(monkeypatch)
    with pytest.raises(BROKEN, match=message):
        run_law(kit, law, tmp_path)


def test_a_silent_net_proves_nothing(tmp_path):
    with pytest.raises(AssertionError, match="nothing would be proved"):
        run_law(kit_for(FreeDelay("layer", max_delay=100, init=90.0)), "net_equals_reference", tmp_path)


def test_every_law_has_a_mutant():
    laws = {name.removeprefix("test_") for name in dir(ComponentConformance) if name.startswith("test_")}
    tables = (MUTANTS, CONFIG_MUTANTS, PRUNING_MUTANTS, WRAPPING_MUTANTS)
    assert laws == {law for table in tables for law, *_ in table}


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
    for layer in (found.spikes[..., :8], found.spikes[..., 8:]):
        assert 0.02 < float(layer.detach().mean()) < 0.30
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
