"""The way of a spike through a wrapped connection: its forward -> the synapse -> one operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from delaykit.attaching.attachment import Attachment, ProductOf
from delaykit.attaching.batch.refusals import other_rows, stepped_already
from delaykit.attaching.batch.rows import LineRows
from delaykit.attaching.connection.calls import sequence_connection, step_connection
from delaykit.attaching.connection.pieces import CarriedTail, carried_sequence, followed_sequence
from delaykit.attaching.exporters import refuse_exporters
from delaykit.attaching.history.carried_states import (
    BARE,
    COPY,
    JOINED_EXPECTED,
    JOINED_FIX,
    move_rows,
)
from delaykit.attaching.history.connection_history import History
from delaykit.attaching.retyping import Undo, give_class_, original_class, retype_
from delaykit.attaching.wiring import Wiring, unwire_, wire_
from delaykit.errors import ConfigError, HistoryError
from delaykit.functional.delayed_convolution import Convolution
from delaykit.functional.eager import eager
from delaykit.functional.step_tape.segment import refuse_backward
from delaykit.interfaces import PointDelay
from delaykit.synapse import Product, Synapse

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *TRANSPOSED)


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
        """Describe the connection as it stands: size, delays, density."""
        return describe(self, super().extra_repr())  # type: ignore[misc]


class CarriedState(LineRows):
    """The state of a connection inside Norse's ``SequentialState``: its history, carried by the caller.

    It takes part in ``tree_map`` as a leaf: its rows go where those of the other states go. One state continues one
    sequence.
    """

    def __init__(self, history: History, like: Tensor) -> None:
        super().__init__(like.shape, like.dtype, like.device, history.lines == 1, history)
        self.history, self.age = history, history.age

    def under_way(self) -> bool:
        """Tell whether a later step may hear of an input."""
        return self.history.under_way()

    def detach(self) -> CarriedState:
        """Cut the graph (truncated BPTT) and keep the remembered spikes."""
        self.history.detach()
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> str:
        return COPY

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (COPY,)


class Handed:
    """A state on its way around the hooks of a connection, which had none when they were written."""

    def __init__(self, state: Any) -> None:
        self.state = state


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
        if not attachment.scope.depth:
            refuse_exporters(attachment.where, input)
        if attachment.off:
            return base(input), go_bare(state)
        if getattr(state, "bare", False):
            raise HistoryError(attachment.where, BARE, "a sequence that begins there", "pass None first")
        if getattr(state, "owner", attachment) is not attachment:
            found = "the state of another connection, or of this one before it was unwrapped, or of which it is a copy"
            raise HistoryError(attachment.where, found, "the state that this connection returned", "pass None first")
        state = in_rows(attachment, state)
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


def in_rows(attachment: Attachment, state: Any) -> Any:
    """Return the state that a connection goes on from, None where its rows changed and nothing is under way.

    Raises:
        HistoryError: rows changed, its input has others, and spikes are under way.
    """
    if attachment.timing.rows == "same" or not isinstance(state, LineRows) or not state.changed:
        return state
    if state.under_way() and bool(state.ids.any()):
        raise other_rows(attachment.where, "a change of some rows of a state", state.batch, carried=True)
    return None


def go_bare(state: Any) -> Any:
    """Return the state behind a step without delays (``dk.disabled``): one with spikes under way lacks that step."""
    if not isinstance(state, (CarriedState, CarriedTail)) or state.bare or not state.under_way():
        return state
    return state.twin(bare=True)


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


def carried_history(where: str, state: Any) -> History:
    """Take the history out of a carried state; None begins a new sequence."""
    if state is None:
        return History(where)
    if not isinstance(state, CarriedState):
        found = state if state == COPY else f"a state of type {type(state).__name__}"
        raise HistoryError(where, found, "None or the state of the step before", "pass None first")
    if state.joined:
        found = "the states of several runs in one, while spikes were under way"
        raise HistoryError(where, found, JOINED_EXPECTED, JOINED_FIX)
    if state.age != state.history.age:
        refuse_backward(where)
        raise stepped_already(where)
    if state.changed:
        move_rows(where, [state.history], state.went(), state.batch, len(state.ids), state.ids.device)
    return state.history


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


def product_of(module: Any, base: Callable[[Tensor], Tensor]) -> Product:
    """Describe a module's own linear map: of a Linear, a convolution, or an element-wise connection.

    Args:
        module: the connection.
        base: its forward without delays.
    """
    bias = getattr(module, "bias", None)
    if isinstance(module, nn.Linear):
        weight = module.weight
        return Product(base, lambda x: nn.functional.linear(x, weight), weight, bias)
    space = channel_space(module)

    def without_bias(x: Tensor) -> Tensor:
        if bias is None:
            return base(x)
        if isinstance(module, TRANSPOSED):
            run = getattr(nn.functional, f"conv_transpose{space}d")
            shape = (module.stride, module.padding, module.output_padding, module.groups, module.dilation)
            return run(x, module.weight, None, *shape)
        if isinstance(module, CONVOLUTIONS):
            return module._conv_forward(x, module.weight, None)
        return base(x) - bias.reshape(-1, *[1] * space)

    return Product(base, without_bias, None, bias, space, convolution_of(module))


def convolution_of(module: Any) -> Convolution | None:
    """Describe a convolution by its kernel; None for other modules."""
    if not isinstance(module, CONVOLUTIONS):
        return None
    options: dict[str, Any] = {name: getattr(module, name) for name in ("stride", "padding", "dilation")}
    transposed, pads = isinstance(module, TRANSPOSED), None
    if transposed:
        options["output_padding"] = module.output_padding
    elif module.padding_mode != "zeros":
        pads, options["padding"] = (list(module._reversed_padding_repeated_twice), module.padding_mode), 0
    return Convolution(module.weight, module.groups, options, transposed, pads)


def fan_in(module: nn.Module) -> int | None:
    """Count the input channels that an output channel of a convolution hears; None for other modules."""
    return module.in_channels // module.groups if isinstance(module, CONVOLUTIONS) else None


def refuse_hidden_product(where: str, module: Any, synapse: Synapse, product: ProductOf | None) -> None:
    """Raise for a delay behind or within a convolution whose class has a forward of its own.

    A delay before it needs its forward only; one behind it leaves the bias where it is, so it needs the product alone;
    one of each pair of channels needs its kernel.
    """
    if not isinstance(module, CONVOLUTIONS) or not isinstance(synapse.delay, PointDelay):
        return
    how = synapse.delay.granularity
    fix = "use an axonal or layer delay, {}or compute its weight by torch.nn.utils.parametrize, registered after "
    kind = original_class(module)
    if product is not None:
        hidden = how == "synaptic" and product(module, module.forward).convolution is None
    else:
        needs = how == "synaptic" or (how == "dendritic" and module.bias is not None)
        hidden = needs and kind.forward not in {base.forward for base in CONVOLUTIONS}
    if hidden:
        found = f"a {how} delay on {kind.__name__}, a convolution with a forward of its own"
        expected = "its product without the bias" if how == "dendritic" else "the product of its input and its weight"
        fix = fix.format("give it bias=False, " if how == "dendritic" else "") + "dk.wrap_"
        raise ConfigError(where, found, expected, fix)


def channel_space(module: nn.Module) -> int:
    """Count the dimensions behind the channel: 0 for Linear, 1 for Conv1d, 2 for Conv2d."""
    return len(module.kernel_size) if isinstance(module, nn.modules.conv._ConvNd) else 0


def describe(module: Any, fallback: str) -> str:
    """Return e.g. ``128 -> 256, axonal delays 0.0..24.1 steps, mean 8.3, learned, density 0.35``."""
    synapse: Synapse = module.dk
    parts = [f"{synapse.site.pre} -> {synapse.site.post}"]
    parts += [p.extra_repr() for p in (synapse.delay, synapse.heterogeneity) if p is not None and p.extra_repr()]
    weight = getattr(module, "weight", None)
    if isinstance(weight, Tensor) and not (synapse.delay is not None and synapse.delay.holds_weight):
        density = float((weight != 0).float().mean())
        if density < 1.0:
            parts.append(f"density {density:.2f}")
    return ", ".join(parts) if len(parts) > 1 else fallback
