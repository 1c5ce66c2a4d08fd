"""One record a module, which goes when nothing is left in it."""

from __future__ import annotations

import copy

from torch import nn

from delaykit.attaching.wiring import keep_, kept, unwire_, wire_, wiring_of


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


def test_an_adapters_own_data_is_in_the_record_and_comes_back_and_goes_by_its_undo():
    module = nn.Identity()
    first, second = keep_(module, "mode", "s"), keep_(module, "mode", "m")
    assert kept(module, "mode") == "m" and vars(module).keys() - vars(nn.Identity()).keys() == {"_dk"}
    twin = copy.deepcopy(module)
    for undo in second:
        undo.run()
    assert kept(module, "mode") == "s" and kept(twin, "mode") == "m"
    for undo in first:
        undo.run()
    assert "_dk" not in vars(module)
