"""snnTorch neurons whose resets are seen as they are made."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.module import _global_buffer_registration_hooks

from delaykit.adapters.snntorch.leaky_kernel import StepsAtOnce
from delaykit.attaching.neuron_mixins import FollowedNeuron

RESETS = ("reset_mem", "reset_hidden")


class FollowedSnn(FollowedNeuron, StepsAtOnce):
    """Mixin that notes snnTorch's own resets: ``reset_mem``, ``reset_hidden``, and with them ``utils.reset``.

    ``utils.reset`` calls ``reset_hidden`` of the library's class, which writes ``.mem`` into every living neuron. So
    the writing is watched: who writes is seen from its frame. A membrane that was zero and is replaced by zeros could
    not be told from an edit by its values. It writes into neurons of other models, too: which model was meant is seen
    from the frame of ``utils.reset`` itself.
    """

    _buffers: dict[str, Tensor | None]

    def __setattr__(self, name: str, value: Any) -> None:
        wiring = self.__dict__.get("_dk")
        watch = None if wiring is None else wiring.watch
        if watch is not None and watch.inside and type(value) is Tensor and not _global_buffer_registration_hooks:
            if name in self._buffers:  # in its own step, several times: what torch does after a dozen questions
                self._buffers[name] = value
                return
        super().__setattr__(name, value)
        if name == "mem" and watch is not None and not watch.inside:
            writer = sys._getframe(1)
            if writer.f_code.co_name in RESETS and _is_of_library(writer):
                watch.forget(_is_meant(self, writer), alone=writer.f_code.co_name == RESETS[0])


def _is_of_library(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith("snntorch")


def _is_meant(module: Any, writer: FrameType) -> bool:
    """Tell whether a reset was made of this neuron, or of a model with it; where nobody can tell, it was."""
    frame: FrameType | None = writer
    while frame is not None and _is_of_library(frame):
        net = frame.f_locals.get("net") if frame.f_code.co_name == "reset" else None
        if isinstance(net, nn.Module):
            return any(part is module for part in net.modules())
        frame = frame.f_back
    return True
