"""One record a module, which goes when nothing is left in it."""

from __future__ import annotations

from torch import nn

from delaykit.attaching.wiring import unwire_, wire_, wiring_of


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
