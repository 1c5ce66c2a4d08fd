"""One record a module, retyping that can be undone, and states that carry histories."""

from __future__ import annotations

import copy
import pickle
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.utils import _pytree

from delaykit.attaching.history.carried_states import (
    CarriedHistories,
    CarriedRun,
    take_histories,
    with_histories,
    without_histories,
)
from delaykit.attaching.history.histories import History
from delaykit.attaching.retyping import Undo, has_mixin, library_class, mixins_of, original_class, retype_, untype_
from delaykit.attaching.wiring import unwire_, wire_, wiring_of
from delaykit.errors import HistoryError


class Shout:
    prefix = "Loud"

    def forward(self, x):
        return super().forward(x) + 100


class Whisper:
    def forward(self, x):
        return super().forward(x) / 2


def test_mixins_stack_and_go():
    module = nn.Identity()
    retype_(module, Shout)
    retype_(module, Whisper)
    assert float(module(torch.tensor(1.0))) == 50.5  # the latest mixin is called first
    assert mixins_of(module) == (Shout, Whisper) and original_class(module) is nn.Identity
    assert isinstance(module, nn.Identity) and has_mixin(module, Shout)
    assert float(copy.deepcopy(module)(torch.tensor(1.0))) == 50.5
    again = pickle.loads(pickle.dumps(module))
    assert type(again) is type(module)
    untype_(module)
    assert type(module) is nn.Identity and not has_mixin(module, Shout)


class Loudspeaker(Shout):
    pass


def test_a_mixin_is_found_by_its_base():
    module = nn.Identity()
    retype_(module, Loudspeaker)
    assert has_mixin(module, Shout) and not has_mixin(module, Whisper)


def test_a_retyped_module_is_still_the_librarys_and_a_subclass_is_not():
    module = nn.Identity()
    retype_(module, Shout)
    assert library_class(nn.Identity(), "torch") == "Identity"
    mine = type("Mine", (nn.Identity,), {"__module__": "somewhere"})
    assert library_class(mine(), "torch") is None


def _set(module, name, value):
    setattr(module, name, value)


def test_an_undo_names_generated_classes_so_that_it_pickles():
    module = nn.Identity()
    retype_(module, Shout)
    undo = pickle.loads(pickle.dumps(Undo(_set, (module, "__class__", type(module)))))
    undo.run()
    assert undo.arguments[2] is type(module)


def test_a_record_is_made_once_and_goes_when_it_is_empty():
    module = nn.Identity()
    assert wiring_of(module) is None
    record = wire_(module)
    assert wire_(module) is record is wiring_of(module)
    record.sites[""] = object()
    unwire_(module)
    assert wiring_of(module) is record
    record.sites.clear()
    unwire_(module)
    assert "_dk" not in module.__dict__


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
