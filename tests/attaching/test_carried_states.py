"""States that carry histories: what a user may do to a state, and what is refused."""

from __future__ import annotations

import copy
from typing import NamedTuple

import pytest
import torch
from torch.utils import _pytree

from delaykit.attaching.history.carried_run import CarriedRun
from delaykit.attaching.history.carried_states import (
    CarriedHistories,
    take_histories,
    with_histories,
    without_histories,
)
from delaykit.attaching.history.connection_history import History
from delaykit.errors import HistoryError


class State(NamedTuple):
    v: torch.Tensor
    i: torch.Tensor


class Library:
    def begins(self, state):
        return state is None


RUN = CarriedRun(Library())


def carried():
    state = State(torch.ones(2, 1), torch.zeros(2, 1))
    return with_histories(state, CarriedHistories({"input": History()}, state))


@pytest.mark.parametrize("change", [lambda s: s._replace(v=s.v * 2), lambda s: _pytree.tree_map(lambda x: x + 0, s)])
def test_histories_survive_what_users_do_to_a_state(change):
    state = carried()
    assert take_histories("cell", change(state), ["input"], RUN) == state._dk.histories
    assert isinstance(change(state), State)


def test_a_state_is_plain_for_its_library_and_a_copy_says_so():
    state = carried()
    assert type(without_histories(state)) is State and without_histories(None) is None
    twin = copy.deepcopy(state)
    assert type(without_histories(twin)) is State and torch.equal(twin.v, state.v)
    with pytest.raises(HistoryError, match="a copy of a state"):
        take_histories("cell", twin, ["input"], RUN)


def test_a_state_is_its_own_cells():
    state = State(torch.ones(2, 1), torch.zeros(2, 1))
    other = with_histories(state, CarriedHistories({"input": History()}, state, CarriedRun(Library())))
    with pytest.raises(HistoryError, match="the state of another cell"):
        take_histories("cell", other, ["input"], RUN)


def test_a_running_state_without_histories_raises_and_a_fresh_one_begins():
    fresh = take_histories("cell", None, ["input", "loop"], RUN)
    assert set(fresh) == {"input", "loop"} and fresh["input"] is not fresh["loop"]
    with pytest.raises(HistoryError, match="a running State without its delay history"):
        take_histories("cell", State(torch.ones(2, 1), torch.zeros(2, 1)), ["input"], RUN)


def test_a_state_is_stepped_once():
    state = carried()
    state._dk.histories["input"].age += 1
    with pytest.raises(HistoryError, match="stepped already"):
        take_histories("cell", state, ["input"], RUN)
