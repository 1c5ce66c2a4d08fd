"""Trial runs in the middle of a sequence: what is under way is put aside meanwhile, and given back afterwards."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator
from typing import Any

from torch import nn

from delaykit.attaching.attachment import Attachment
from delaykit.attaching.wiring import wiring_of


class _Running(threading.local):
    depth = 0


_RUNNING = _Running()


def in_trial_run() -> bool:
    """Tell whether a model is being tried out, in this thread, maybe before it is wrapped."""
    return _RUNNING.depth > 0


@contextlib.contextmanager
def lines_aside(net: nn.Module) -> Iterator[None]:
    """Let a run of the model begin with nothing under way, and the sequence before it go on behind the block.

    Membranes are the neurons' own business, and whoever tries a model out gives those back, too. Histories that ride in
    a state are with the caller. Of a model's part, what the calls of the wrapped root count is given back, too.
    """
    wirings = [wiring for module in net.modules() if (wiring := wiring_of(module)) is not None]
    attachments = [attachment for wiring in wirings for attachment in wiring.sites.values()]
    kept = [part for attachment in attachments for part in _parts(attachment)]
    watches = [wiring.watch for wiring in wirings if wiring.watch is not None]
    scopes = {id(a.scope): a.scope for a in attachments}.values()
    apart = [(part, _attributes(part)) for scope in scopes for part in (*scope.histories, *scope.watches)]
    apart += [(scope, dict(vars(scope))) for scope in scopes]
    before = [(part, _attributes(part)) for part in (*kept, *watches, *(w.beginnings for w in wirings if w.beginnings))]
    for attachment in attachments:
        attachment.history.clear()
        attachment.history.lost = False
    for watch in watches:
        watch.begin()
    _RUNNING.depth += 1
    try:
        yield
    finally:
        _RUNNING.depth -= 1
        for part, attributes in (*apart, *before):
            part.__dict__.clear()
            part.__dict__.update(attributes)


def _parts(attachment: Attachment) -> list[Any]:
    history = attachment.history
    return [history, *history.beats, *([] if history.ends is None else [history.ends])]


def _attributes(part: Any) -> dict[str, Any]:
    """Return the attributes of an object; lists are copied, since they are changed in place."""
    return {k: v.copy() if isinstance(v, (list, deque)) else v for k, v in vars(part).items()}
