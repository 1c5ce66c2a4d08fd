"""Whole sequences whose delays begin anew with every call: the states of the neurons around them must, too.

A connection that holds a whole sequence a call does not see which state its neuron is going to be given. So it counts
its calls and notes whether something was under way at the end of one (:class:`Ends`), and the neurons before and behind
it look, once a call, whether they go on from where an earlier one ended (:class:`Beginnings`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from delaykit.attaching.neuron_reading import ReadsNeurons
from delaykit.errors import HistoryError


class Ends:
    """What the calls of one connection left under way, which no later call hears of.

    Attributes:
        calls: how many there were.
        last: whether anything was under way at the end of the newest, and of the one before; asked for only where a
            state goes on.
        ever: whether anything was at the end of any of them, and of any but the newest.
    """

    def __init__(self) -> None:
        self.calls = 0
        self.clear()

    def clear(self) -> None:
        """Forget what was lost: the user says that a sequence begins."""
        self.last: tuple[Tensor | bool, Tensor | bool] = False, False
        self.ever: tuple[Tensor | bool, Tensor | bool] = False, False

    def miss(self) -> None:
        """Know that calls before these left something under way."""
        self.calls += 1
        self.last = self.ever = True, True

    def begin(self, spikes: Tensor, reach: int | None) -> None:
        """Note a call.

        Args:
            spikes: (time, batch, pre, *space), the whole of it.
            reach: how many of the newest inputs an output reads; None: all.
        """
        if torch._C._functorch.is_functorch_wrapped_tensor(spikes):
            return  # of torch.func: nothing of it may be kept
        self.calls += 1
        late = spikes.detach()
        late = (late if reach is None else late[max(0, len(late) - reach + 1) :]).any()
        self.last = late, self.last[0]
        self.ever = late if self.ever[0] is False else late | self.ever[0], self.ever[0]

    def lost(self, own: bool, later: bool | None) -> bool:
        """Tell whether a state that goes on misses something.

        Args:
            own: it is the one that the newest step left; else nobody knows which call it goes on from.
            later: the connection is called after the neuron, so that its newest call is of the sequence before; None:
                nobody knows.
        """
        found = self.last if own else self.ever
        return any(map(bool, found)) if later is None else bool(found[not later])

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {name: tuple(map(bool, getattr(self, name))) for name in ("last", "ever")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state


class Beginnings:
    """Beside a neuron: the connections around it that begin anew with every call.

    Args:
        adapter: who knows its states.
        keeps: whether it keeps its state itself.
        path: its name, for messages.
    """

    def __init__(self, adapter: ReadsNeurons, keeps: bool, path: str) -> None:
        self.adapter, self.keeps, self.path = adapter, keeps, path
        self.lines: list[tuple[str, Ends, bool | None]] = []
        self._seen: list[int] = []
        self._left: Tensor | None = None

    def add(self, where: str, ends: Ends, later: bool | None) -> None:
        """Watch a connection, ``later`` where it is called after the neuron; None: nobody knows."""
        self.lines.append((where, ends, later))
        self._seen.append(-1 if later is False else ends.calls)

    def check(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Begin a step.

        Raises:
            HistoryError: its state goes on, and spikes were under way that are lost.
        """
        due = [k for k, (_, ends, _) in enumerate(self.lines) if ends.calls != self._seen[k]]
        if not due:
            return
        for k in due:
            self._seen[k] = self.lines[k][1].calls
        state = self._state(module, args, kwargs)
        own = any(self._is_own(tensor) for tensor in state)
        if not own and self._begins(state, args, kwargs):
            return
        lines = (self.lines[k] for k in due)
        late = [where for where, ends, later in lines if ends.lost(own, later)]
        if late:
            raise HistoryError(
                ", ".join(late), f"neuron {self.path!r} on a state that is not at rest: it goes on from an earlier "
                "call, at whose end spikes were under way, or a sequence begins with values of its own",
                "one call a sequence, from rest: delays of whole sequences begin anew with every call",
                _GO_ON if self.keeps else _HAND_ON,
            )  # fmt: skip

    def _state(self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Tensor]:
        if self.keeps:
            return self.adapter.given_state(module, args, kwargs) or self.adapter.held_state(module)
        membrane = self.adapter.membrane(module, _given(args, kwargs))
        return [] if membrane is None else [membrane]

    def _begins(self, state: list[Tensor], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        if self.keeps:
            return not any(bool(tensor.any()) for tensor in state)
        return _given(args, kwargs) is None or self.adapter.begins(_given(args, kwargs))

    def _is_own(self, tensor: Tensor) -> bool:
        left = self._left
        return left is not None and tensor.numel() > 0 and tensor.data_ptr() == left.data_ptr()

    def leave(self, module: nn.Module, output: Any) -> None:
        """End a step: know the state that it left, which may be at rest and go on."""
        state = output[1] if isinstance(output, tuple) and len(output) == 2 else None
        membrane = self.adapter.membrane(module) if self.keeps else self.adapter.membrane(module, state)
        self._left = None if membrane is None else membrane.detach()  # held, so that its address stays its own

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_left": None}


def _given(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    return args[1] if len(args) > 1 else kwargs.get("state")


_LOST = (
    "; call dk.reset(net) where a sequence begins with a state of your own; or use dk.At(component, reset='root') if "
    "spikes under way shall be lost"
)
_HAND_ON = (
    "put connection and neuron into a container whose state carries what is under way (Norse: SequentialState); or "
    "call both at every step of a loop" + _LOST
)
_GO_ON = (
    "let the neuron keep its state from call to call (snnTorch: init_hidden=True) and wrap with an example of two "
    "calls; or call the layer at every step of the loop" + _LOST
)
