"""The way of a spike through a wrapped connection: its forward -> the synapse -> one operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from delaykit.attaching.attachment import Attachment
from delaykit.attaching.connection.calls import sequence_connection, step_connection
from delaykit.attaching.connection.pieces import carried_sequence, followed_sequence
from delaykit.attaching.connection.products import product_of, refuse_hidden_product
from delaykit.attaching.exporters import refuse_exporters
from delaykit.attaching.history.carried_states import BARE
from delaykit.attaching.history.connection_states import (
    AheadState,
    CarriedState,
    CarriedTail,
    Handed,
    carried_history,
    connection_after_bare_step,
    in_rows,
)
from delaykit.attaching.retyping import Undo, give_class_, retype_
from delaykit.attaching.wiring import Wiring, unwire_, wire_
from delaykit.errors import HistoryError
from delaykit.functional.eager import eager
from delaykit.functional.step_tape.segment import refuse_backward
from delaykit.synapse import Product, Synapse


class DelayedConnection:
    """Mixin for a feed-forward or recurrent connection module (Linear, Conv, one-to-one V)."""

    prefix = "Delayed"
    dk: Synapse
    _dk: Wiring

    def forward(self, input: Tensor) -> Tensor:
        """Run one step, or a whole sequence, through the synapse."""
        base, attachment = super().forward, self._dk.sites[""]  # type: ignore[misc]
        if not attachment.scope.depth:
            refuse_exporters(attachment.where, input)
        if attachment.off:
            return base(input)
        return run_connection(self, attachment, _product(self, attachment, base), input)

    def reset_parameters(self) -> None:
        """Draw the module's own parameters anew, and the delays with them."""
        getattr(super(), "reset_parameters", lambda: None)()
        self.dk.reset_parameters()

    def extra_repr(self) -> str:
        """Describe it as it stands: ``128 -> 256, axonal delays 0.0..24.1 steps, mean 8.3, learned, density 0.35``."""
        synapse = self.dk
        parts = [f"{synapse.site.pre} -> {synapse.site.post}"]
        parts += [p.extra_repr() for p in (synapse.delay, synapse.heterogeneity) if p is not None and p.extra_repr()]
        weight = getattr(self, "weight", None)
        if isinstance(weight, Tensor) and not (synapse.delay is not None and synapse.delay.holds_weight):
            density = float((weight != 0).float().mean())
            if density < 1.0:
                parts.append(f"density {density:.2f}")
        return ", ".join(parts) if len(parts) > 1 else super().extra_repr()  # type: ignore[misc]


class CarriedConnection(DelayedConnection):
    """Mixin for a connection inside ``SequentialState``: the history rides in the returned state."""

    def __call__(self, input: Tensor, state: Any = None) -> Any:
        """Run one step; return (output, state that carries the history). Hooks meet input and output alone."""
        handed = Handed(state)
        output = super().__call__(input, state=handed)  # type: ignore[misc]
        return output, handed.state

    def forward(self, input: Tensor, state: Any = None) -> Any:
        """Run one step; return (output, state that carries the history)."""
        if not isinstance(state, Handed):
            return self._dk_stepped(input, state)
        output, state.state = self._dk_stepped(input, state.state)
        return output

    def _dk_stepped(self, input: Tensor, state: Any) -> Any:
        base, attachment = super(DelayedConnection, self).forward, self._dk.sites[""]  # type: ignore[misc]
        if isinstance(state, AheadState):
            state = state.resumed()
        if not attachment.scope.depth:
            refuse_exporters(attachment.where, input)
        if attachment.off:
            return base(input), connection_after_bare_step(state)
        if getattr(state, "bare", False):
            raise HistoryError(attachment.where, BARE, "a sequence that begins there", "pass None first")
        if getattr(state, "owner", attachment) is not attachment:
            found = "the state of another connection, or of this one before it was unwrapped, or of which it is a copy"
            raise HistoryError(attachment.where, found, "the state that this connection returned", "pass None first")
        state = in_rows(attachment.where, attachment.timing.rows, state)
        product = _product(self, attachment, base)
        after: CarriedState | CarriedTail
        if attachment.timing.time_dim is not None:
            time_dim = attachment.timing.time_dim
            output, after = carried_sequence(self.dk, attachment.where, product, input, time_dim, state)
        else:
            history = carried_history(attachment.where, state)
            output = step_connection(self.dk, attachment, product, input, history)
            after = CarriedState(history, input)
        after.owner = attachment
        return output, after


def attach_connection_(module: nn.Module, synapse: Synapse, attachment: Attachment) -> list[Undo]:
    """Retype one connection module in place, so that its calls go through ``synapse``; return how to take it back.

    Args:
        module: a Linear, a convolution, or a module with a product of its own.
        synapse: what its calls go through.
        attachment: its timing and history.
    """
    refuse_hidden_product(attachment.where, module, synapse, attachment.product)
    before = module.__class__
    mixin = CarriedConnection if attachment.timing.policy == "carried" else DelayedConnection
    retype_(module, mixin)
    wire_(module).sites[""] = attachment
    module.add_module("dk", synapse)
    return [Undo(_detach_connection_, (module, before, attachment))]


def _detach_connection_(module: nn.Module, before: type, attachment: Attachment) -> None:
    give_class_(module, before)
    module._modules.pop("dk", None)
    wire_(module).sites.pop("", None)
    unwire_(module)
    attachment.history.clear()


def run_connection(module: Any, attachment: Attachment, product: Product, input: Tensor) -> Tensor:
    """Run one call of a wrapped connection, a step or a whole sequence."""
    timing = attachment.timing
    if timing.time_dim is not None and timing.policy != "follow":
        ends = attachment.history.ends
        return sequence_connection(module.dk, attachment.where, product, input, timing.time_dim, ends)
    return _run_remembering(module, attachment, product, input)


@eager  # whether a sequence begins is read off identities and counts
def _run_remembering(module: Any, attachment: Attachment, product: Product, input: Tensor) -> Tensor:
    timing, history = attachment.timing, attachment.history
    refuse_backward(attachment.where)
    history.enter(attachment.clock.moment())
    if timing.time_dim is not None:
        return followed_sequence(module.dk, history, timing.streams, product, input, timing.time_dim)
    if attachment.owned and attachment.watch is not None:
        return history.once_a_step(
            attachment.watch.steps, lambda: step_connection(module.dk, attachment, product, input, history)
        )
    return step_connection(module.dk, attachment, product, input, history)


def _product(module: Any, attachment: Attachment, base: Callable[[Tensor], Tensor]) -> Product:
    return (attachment.product or product_of)(module, base)
