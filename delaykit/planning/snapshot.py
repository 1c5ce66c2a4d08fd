"""A model as it was: attributes, values, train flags and random generators, to be given back after a trial run."""

from __future__ import annotations

import contextlib
import copy
import itertools
import random
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn


class Snapshot:
    """Remember what a run of a model may change besides gradients.

    Args:
        net: the model.
        weights: whether parameters are remembered, too; False for a model that is known to leave them alone.
    """

    def __init__(self, net: nn.Module, weights: bool = True) -> None:
        modules = list(net.modules())
        self._attributes = [(m, dict(m.__dict__)) for m in modules]
        held = [v for m in modules for v in m.__dict__.values() if type(v) in (list, dict, set)]
        self._contents = [(v, copy.copy(v)) for v in held]
        named = itertools.chain(net.parameters() if weights else (), net.buffers())
        strided = [t for t in named if t.layout is torch.strided and not t.is_meta]
        self._tensors = [(t, t.data, t.detach().clone()) for t in strided]
        self._python, self._numpy, self._torch = random.getstate(), np.random.get_state(), torch.get_rng_state()
        on_gpu = torch.cuda.is_available() and torch.cuda.is_initialized()
        self._cuda = torch.cuda.get_rng_state_all() if on_gpu else []

    def restore(self) -> None:
        """Give all of it back."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        if self._cuda:
            torch.cuda.set_rng_state_all(self._cuda)
        for module, own in self._attributes:
            module.__dict__.clear()
            module.__dict__.update(own)
        for container, content in self._contents:
            container.clear()
            container.extend(content) if isinstance(container, list) else container.update(content)
        with torch.no_grad():
            for tensor, data, value in self._tensors:
                if tensor.data_ptr() != data.data_ptr() or tensor.shape != data.shape:
                    tensor.data = data  # ``p.data = ...`` in forward
                if not torch.equal(tensor, value):
                    tensor.data.copy_(value)  # no version for it: nothing has happened

    def weights_changed(self) -> bool:
        """Tell whether a parameter is not what it was."""
        return any(
            isinstance(t, nn.Parameter) and (t.data_ptr() != data.data_ptr() or not torch.equal(t, value))
            for t, data, value in self._tensors
        )


@contextlib.contextmanager
def restored(net: nn.Module) -> Iterator[None]:
    """Give modules their attributes, values and train flag back, and the random generators their state."""
    before = Snapshot(net)
    try:
        yield
    finally:
        before.restore()
