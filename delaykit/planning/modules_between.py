"""What lies between a connection and the neuron behind it, where a component takes over part of that neuron's work.

Values are not enough: dropout does nothing in the example, which runs in eval mode, and normalisation next to nothing.
So it is read off the operations: a sum and a change of shape let currents through as they are, anything else does not.
"""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from delaykit.attaching.batch.tensors import tensors_in
from delaykit.errors import ConfigError
from delaykit.synapse import Synapse

THROUGH = set(
    "add add_ sum alias as_strided cat chunk clone contiguous copy_ detach expand expand_as flatten index narrow "
    "permute reshape select slice split squeeze stack t _to_copy transpose unbind unflatten unsqueeze _unsafe_view "
    "view".split()
)
DROPOUTS = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout")
Site = tuple[str, str, int]  # as in a tag


class Alterations:
    """What was done to the current of each connection on its way, tensor by tensor."""

    def __init__(self) -> None:
        self._known = WeakTensorKeyDictionary()

    def of(self, value: Any) -> frozenset[tuple[Site, str]]:
        """Return pairs of a connection's call and what was done to its current, as far as ``value`` comes of it."""
        found = [self._known.get(tensor, frozenset()) for tensor in tensors_in(value)]
        return frozenset().union(*found) if found else frozenset()

    def note(self, operation: str, tags: frozenset[Site], inputs: Any, output: Any) -> None:
        """Take down one operation on currents that are tagged."""
        done = self.of(inputs)
        if operation not in THROUGH:
            done |= {(tag, operation) for tag in tags if tag[0] == "site"}
        for tensor in tensors_in(output) if done else ():
            self._known[tensor] = self._known.get(tensor, frozenset()) | done

    def forget(self, output: Any) -> None:
        """Begin anew: a connection or a neuron has just made this."""
        for tensor in tensors_in(output):
            self._known.pop(tensor, None)


class SeesDropout(TorchFunctionMode):
    """Notes dropout, which is no operation in eval mode.

    Args:
        provenance: knows the tags of a tensor, and its alterations.
    """

    def __init__(self, provenance: Any) -> None:
        super().__init__()
        self.provenance = provenance

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        if name in DROPOUTS and func is getattr(nn.functional, name, None):
            self.provenance.alterations.note(name, self.provenance.of((args, kwargs)), (args, kwargs), output)
        return output


def refuse_between(synapse: Synapse, name: str, between: dict[str, dict[str, str]]) -> None:
    """Raise where a connection whose component takes over the neuron's integration does not lead straight to it.

    Args:
        synapse: built for a look.
        name: of the connection in the example.
        between: what was done to its current before which neuron.

    Raises:
        ConfigError: something other than a sum or a change of shape lies in between.
    """
    part = synapse.heterogeneity
    if part is None or not part.needs_neuron:
        return
    for operation, path in between.get(name, {}).items():
        raise ConfigError(
            synapse.site.name,
            f"{operation} between this connection and neuron {path!r}",
            "nothing but sums and changes of shape: its currents linger in place of the neuron's own state, and what "
            "stands between would act on all that is left of them, at every step",
            "move it behind the neuron, or leave this connection out",
        )
