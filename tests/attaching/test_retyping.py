"""Retyping: mixins stack in front of a module's class, can be undone, and leave it the library's own."""

from __future__ import annotations

import copy
import pickle

import torch
from torch import nn

from delaykit.attaching.retyping import Undo, has_mixin, library_class, mixins_of, original_class, retype_, untype_


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
