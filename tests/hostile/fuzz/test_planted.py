"""Faults planted in delaykit, one at a time: the fuzzer must find each of them, or it shows nothing."""

from __future__ import annotations

import pytest

pytest.importorskip("snntorch", reason="fuzzes snntorch loops")
pytest.importorskip("norse.torch", reason="fuzzes norse loops")
from compare import difference  # noqa: E402
from programs import random_program  # noqa: E402

from delaykit.arrivals import Linear  # noqa: E402
from delaykit.attaching.batch import membranes, streams  # noqa: E402
from delaykit.attaching.history import (
    carried_states,  # noqa: E402
    connection_states,  # noqa: E402
)
from delaykit.attaching.history.connection_history import History  # noqa: E402
from delaykit.attaching.scope import RootScope  # noqa: E402
from delaykit.attaching.watches import NeuronWatch  # noqa: E402
from delaykit.functional.engine_base import Engine  # noqa: E402
from delaykit.functional.step_tape.filters import ChannelFilter  # noqa: E402
from delaykit.functional.step_tape.operator import Tape  # noqa: E402
from delaykit.functional.step_tape.products import DendriticOperator  # noqa: E402

MOST = 300


def nothing(*arguments, **options):
    """Do nothing."""


def a_line_survives_a_reset(patch):
    def enter(self, moment):
        if self.moment is not None and self.moment.segment != moment.segment:
            self.detach()
        self.moment = moment

    patch.setattr(History, "enter", enter)
    patch.setattr(History, "close", nothing)


def a_reset_of_rows_is_forgotten(patch):
    patch.setattr(History, "clear_rows", nothing)


def rows_stay_where_they_were(patch):
    patch.setattr(streams.Stream, "select", lambda self, rows, device: setattr(self, "batch", len(rows)))


def rows_of_a_cell_stay(patch):
    patch.setattr(carried_states, "_follow_rows", nothing)


def rows_of_a_chain_stay(patch):
    patch.setattr(connection_states, "move_rows", nothing)


def an_edit_counts_as_a_reset(patch):
    change_between = membranes.change_between

    def hasty(*arguments):
        change = change_between(*arguments)
        return membranes.RESET if change.kind == "edit" else change

    patch.setattr(membranes, "change_between", hasty)


def equal_values_count_as_a_reset(patch):
    change_between = membranes.change_between

    def hasty(*arguments):
        change = change_between(*arguments)
        return membranes.RESET if change.kind == "same" else change

    patch.setattr(membranes, "change_between", hasty)


def a_reset_by_hand_is_not_seen(patch):
    patch.setattr(NeuronWatch, "_tell", nothing)


def the_first_weight_counts(patch):
    patch.setattr(Engine, "stale", lambda *_: False)


def a_current_takes_the_new_weight(patch):
    patch.setattr(DendriticOperator, "remains", nothing)


def one_step_late(patch):
    taps = Linear.taps
    patch.setattr(Linear, "taps", lambda self, delay, *more: taps(self, delay + 1, *more))


def streams_share_a_line(patch):
    step = History.step

    def shared(self, synapse, product, spikes, streams=1):
        return step(self, synapse, product, spikes)

    patch.setattr(History, "step", shared)


def calls_are_not_compared_with_steps(patch):
    patch.setattr(History, "_count", nothing)
    patch.setattr(NeuronWatch, "_meet", nothing)


def an_input_gradient_one_step_early(patch):
    read_back = ChannelFilter.read_back
    patch.setattr(ChannelFilter, "read_back", lambda self, rows, row, out: read_back(self, rows, max(0, row - 1), out))


def a_graph_is_not_cut(patch):
    patch.setattr(History, "detach", nothing)


def a_cut_forgets_what_is_under_way(patch):
    detach = Tape.detach

    def forget(self):
        detach(self)
        self._past = self._remains = None

    patch.setattr(Tape, "detach", forget)


def threads_share_a_line(patch):
    def enter(self):
        self.depth += 1
        self.serial += self.depth == 1

    def leave(self, failed):
        self.depth = max(0, self.depth - 1)

    patch.setattr(RootScope, "enter", enter)
    patch.setattr(RootScope, "leave", leave)
    patch.setattr(NeuronWatch, "_meet", nothing)  # which sees it, too
    patch.setattr(History, "_count", nothing)


def threads_share_a_cell(patch):
    patch.setattr(carried_states.CarriedRun, "running", None)


PLANTED = [
    a_line_survives_a_reset,
    a_reset_of_rows_is_forgotten,
    rows_stay_where_they_were,
    rows_of_a_cell_stay,
    rows_of_a_chain_stay,
    an_edit_counts_as_a_reset,
    pytest.param(equal_values_count_as_a_reset, marks=pytest.mark.slow),
    a_reset_by_hand_is_not_seen,
    the_first_weight_counts,
    pytest.param(a_current_takes_the_new_weight, marks=pytest.mark.slow),
    one_step_late,
    streams_share_a_line,
    calls_are_not_compared_with_steps,
    an_input_gradient_one_step_early,
    pytest.param(a_graph_is_not_cut, marks=pytest.mark.slow),
    a_cut_forgets_what_is_under_way,
    pytest.param(threads_share_a_line, marks=pytest.mark.slow),
    pytest.param(threads_share_a_cell, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(plant, monkeypatch):
    plant(monkeypatch)
    for seed in range(MOST):
        verdict = difference(random_program(seed))
        if verdict not in ("", "refused"):
            return
    raise AssertionError(f"{MOST} programs did not find it")
