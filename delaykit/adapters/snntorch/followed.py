"""snnTorch neurons whose resets are seen as they are made."""

from __future__ import annotations

import sys
from typing import Any

from delaykit.attaching.neurons import FollowedNeuron

RESETS = ("reset_mem", "reset_hidden")


class FollowedSnn(FollowedNeuron):
    """Mixin that notes snnTorch's own resets: ``reset_mem``, ``reset_hidden``, and with them ``utils.reset``.

    ``utils.reset`` calls ``reset_hidden`` of the library's class, which writes ``.mem`` into every living neuron. So
    the writing is watched: who writes is seen from its frame. A membrane that was zero and is replaced by zeros could
    not be told from an edit by its values.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "mem":
            watch = self._dk.watch
            if watch is not None and not watch.inside:
                code = sys._getframe(1)
                if code.f_code.co_name in RESETS and code.f_globals.get("__name__", "").startswith("snntorch"):
                    watch.forget()
