"""What a segment has read of its parameters: weight, delays, decays, positions, taps, as they were then."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from delaykit.functional.engine_base import bits_of, memory_comparison, same_bytes, same_values, version_of
from delaykit.synapse import Synapse

MANY = 1 << 17  # numbers that are not all looked at in every step: more than a weight has
SOME = 1 << 12  # of those: what is written to all of them is seen


class ReadParameter:
    """One of them, by where it lies: another one may be put there, or this one be written.

    Args:
        store: the parameters or buffers of a module.
        name: its name there.
        tensor: as it is now.
    """

    live: Any  # the bits as they are, as an array
    some: Any  # a few of very many, likewise
    values: Any  # as they were

    def __init__(self, store: dict[str, Any], name: str, tensor: Tensor) -> None:
        self.store, self.name, self.tensor = store, name, tensor
        self.shape, self.dtype = tensor.shape, tensor.dtype  # net.double() changes them in the same tensor
        self.version, self.place, self.values, self.size = version_of(tensor), 0, None, 0
        many = tensor.numel() > MANY
        self.live, self.some = (None, _some_of(tensor)) if many else (bits_of(tensor), None)
        if self.live is not None:
            self.place, self.values = tensor.data_ptr(), self.live.tobytes()
            self.size = len(self.values)
        elif self.some is not None:
            self.place, self.values = tensor.data_ptr(), self.some.copy()

    def changed(self) -> bool:
        """Tell whether it is another by now."""
        now = self.store.get(self.name)
        if now is None:
            return True
        if now is not self.tensor or (self.live is not None and now.data_ptr() != self.place):
            return now.shape != self.shape or not torch.equal(now, self._was().to(now))
        if self.live is not None:
            return not same_bytes(self.place, self.live, self.values)
        if self.some is not None:
            some = self.some if now.data_ptr() == self.place else _some_of(now)
            if some is None or some.shape != self.values.shape or bool((some != self.values).any()):
                return True
        return self.version is not None and now._version != self.version

    def _was(self) -> Tensor:
        if self.values is None or self.some is not None:
            return self.tensor
        values = bytearray(self.values)
        return torch.frombuffer(values, dtype=self.dtype).reshape(self.shape) if len(values) else self.tensor


def _some_of(tensor: Tensor) -> Any:
    live = bits_of(tensor)
    return None if live is None else live.reshape(-1)[:: max(1, tensor.numel() // SOME)]


class ReadParameters:
    """Parameters and buffers of a synapse, the leak of its neuron, and which of them, and of weight and bias, learn.

    On the CPU values tell, of very many of them some; else identities and versions, which what is written through
    ``parameter.data`` does not move: what they do not see counts from the next reset or detach. The values of weight
    and bias are the engine's business.

    Args:
        synapse: what was read; its heterogeneity, if any, may ask the neuron behind it for a leak.
        others: weight and bias of the connection.
    """

    def __init__(self, synapse: Synapse, *others: Tensor | None) -> None:
        self.of_inference = torch.is_inference_mode_enabled()
        self._read: list[ReadParameter] = []
        for module in synapse.modules():
            for store in (module._parameters, module._buffers):
                self._read += [ReadParameter(store, name, one) for name, one in store.items() if one is not None]
        learns = [one for one in (*(entry.tensor for entry in self._read), *others) if isinstance(one, nn.Parameter)]
        self._learns = [(one, one.requires_grad) for one in learns]
        self._heterogeneity = synapse.heterogeneity
        leak, neuron = self._leak_now(), None if self._heterogeneity is None else self._heterogeneity.neuron
        place = None if leak is None else getattr(neuron, "leak_place", lambda: None)()
        if place is not None:
            store, name = place
            self._read.append(ReadParameter(store, name, store[name]))
        self._leak = None if leak is None or place else leak.clone()  # it may be a parameter of the neuron
        self._compare = memory_comparison()
        self._quick = [(e, e.store, e.name, e.tensor, e.place, e.values, e.size) for e in self._read]

    @torch.no_grad()
    def _leak_now(self) -> Tensor | None:
        return None if self._heterogeneity is None else self._heterogeneity.leak()

    def changed(self) -> bool:
        """Tell whether any of it is another by now."""
        compare = self._compare
        for entry, store, name, tensor, place, values, size in self._quick:  # asked at every step: no calls
            at_rest = size and compare is not None and store.get(name) is tensor and tensor.data_ptr() == place
            if (not at_rest or compare(place, values, size)) and entry.changed():
                return True
        for one, learns in self._learns:
            if one.requires_grad != learns:
                return True
        if self._leak is None:
            return False
        leak = self._leak_now()
        return leak is None or not same_values(leak, self._leak)
