"""The laws of adapters can fail: each kills an adapter with one fault, and none kills the right one."""

from __future__ import annotations

import inspect

import pulse
import pytest
from mutants import MUTANTS

from delaykit.testing import AdapterConformance, adapter_on_trial

page = pulse.load()
LAWS = sorted(name for name in dir(AdapterConformance) if name.startswith("test_"))

# What kills each mutant, and maybe other laws with it.
KILLED_BY = {
    "OtherVersion": "test_states_its_interface_version",
    "MissesCarried": "test_finds_what_is_there",
    "AllKept": "test_finds_what_is_there",
    "AllSequences": "test_finds_what_is_there",
    "BatchIsTime": "test_delays_are_shifts",
    "AllowsGates": "test_refuses_with_a_reason",
    "NoReason": "test_refuses_with_a_reason",
    "EmptiesMembrane": "test_delays_are_shifts",
    "NeverReset": "test_a_sequence_leaves_nothing_behind",
    "NoMembrane": "test_rest_is_rest",
    "IdleReset": "test_rest_is_rest",
    "OtherRest": "test_rest_is_rest",
    "AlwaysBegins": "test_a_state_without_its_history_is_refused",
    "WrongDecay": "test_rollout_equals_the_step_loop",
    "WrongReset": "test_rollout_equals_the_step_loop",
    "ForgetsLoop": "test_an_added_recurrence_is_the_output_late",
    "WrongLeak": "test_leak_is_the_decay_of_what_adds_input_up",
    "NoUndo": "test_unwrap_returns_the_same_objects",
    "DropsBias": "test_zero_delay_is_the_bare_net",
    "SharesHistory": "test_copies_are_independent",
    "StaysOn": "test_disabled_is_the_bare_net",
    "LosesWeights": "test_checkpoints_come_back",
    "Pokes": "test_unwrap_returns_the_same_objects",
    "KeepsOn": "test_unwrap_returns_the_same_objects",
}


def outcome(adapter, law, tmp_path):
    """Run one law over all nets of the page; return whether it failed."""
    suite = type("Suite", (AdapterConformance,), {"adapter": adapter, "nets": page.TestPulse.nets})()
    method = getattr(suite, law)
    wanted = inspect.signature(method).parameters
    cases = suite.nets if "case" in wanted else (None,)
    with adapter_on_trial(adapter):
        for case in cases:
            given = {"case": case, "tmp_path": tmp_path}
            try:
                method(**{name: given[name] for name in wanted})
            except Exception:  # a law may fail in any way: an assertion, or an error of delaykit that users would see
                return True
    return False


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda cls: cls.__name__)
def test_a_law_kills_the_mutant(mutant, tmp_path):
    assert outcome(mutant, KILLED_BY[mutant.__name__], tmp_path)


def test_every_law_kills_one():
    assert set(LAWS) == set(KILLED_BY.values())
