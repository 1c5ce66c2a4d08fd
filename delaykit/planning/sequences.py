"""Whole sequences: which dimension of a connection's input is time, and where none can be."""

from __future__ import annotations

from delaykit.attaching.adapter import Neuron, Spot
from delaykit.attaching.clocks import Policy, Timing
from delaykit.attaching.connection.products import channel_space
from delaykit.errors import ConfigError, HistoryError, ShapeError
from delaykit.planning.rules import ASK_WHOLE, OF_WHOLE
from delaykit.planning.trace import Call


def time_dim_of(spot: Spot, call: Call, heard: list[tuple[str, Call]], steps: int) -> int:
    """Find the one dimension of the input that is as long as the neuron's steps."""
    if heard and heard[0][1].input_shape == call.output_shape:
        raise outside_the_loop(spot)
    if len(heard) > 1 and heard[0][1].same_input(heard[1][1]):
        raise outside_the_loop(spot)
    lead = call.input_shape[: len(call.input_shape) - 1 - channel_space(spot.module)]
    out, one = call.output_shape, heard[0][1].input_shape if heard else ()
    # A step of the neuron is one slice of the output; of time and batch in one dimension it would be a part of one.
    hits = [dim for dim, size in enumerate(lead) if size == steps and (*out[:dim], *out[dim + 1 :]) == one]
    if len(hits) == 1:
        return hits[0]
    count = "no dimension" if not hits else f"{len(hits)} dimensions"
    raise ShapeError(
        spot.name, f"one call for {steps} neuron steps, and {count} of that size in its input {call.input_shape}",
        "exactly one time dimension", "say which it is: dk.At(component, time_dim=0); a layer called once outside the "
        "time loop on a constant input cannot be delayed: move it into the loop",
    )  # fmt: skip


def outside_the_loop(spot: Spot) -> HistoryError:
    """Say that a layer has no time of its own."""
    return HistoryError(
        spot.name, "a layer called once, outside the time loop: its input has no time", "a layer called at every step",
        "move the call into the time loop, or leave this layer out of the rules",
    )  # fmt: skip


def sequence_timing(spot: Spot, call: Call, time_dim: int, steps: int, reset: str) -> Timing:
    """Return the timing of a layer that holds a whole sequence a call, its time checked against the neuron's steps."""
    rank = len(call.input_shape) - 1 - channel_space(spot.module)
    if not -len(call.input_shape) <= time_dim < len(call.input_shape) or time_dim % len(call.input_shape) >= rank:
        expected = f"a dimension before the channel of an input of shape {call.input_shape}"
        raise ShapeError(
            spot.name, f"time_dim={time_dim}", expected, "time comes first in Norse and in snnTorch's sequence neurons"
        )
    length = call.input_shape[time_dim % len(call.input_shape)]
    if steps > 1 and length != steps:
        found = f"time_dim={time_dim}, {length} long, before a neuron that makes {steps} steps"
        fix = "let time have a dimension of its own: do not flatten it together with the batch"
        raise ShapeError(spot.name, found, "a dimension as long as the sequence", fix)
    return Timing(whole_policy(spot, reset), time_dim % len(call.input_shape))


def check_is_time(
    spot: Spot, calls: list[Call], heard: list[list[tuple[str, Call]]], time_dim: int, neurons: dict[str, Neuron]
) -> None:
    """Raise where the neurons of the example did not hear slices along the dimension that the user named.

    One step of a neuron is a slice of the output, be it pooled or flattened: it has a dimension less, and no batch that
    the slice has not. A neuron that takes sequences takes all the calls' output, along the time of its own.
    """
    out, space = calls[0].output_shape, channel_space(spot.module)
    dim = time_dim % max(1, len(out))
    one = (*out[:dim], *out[dim + 1 :])
    alone = ((1,), out[dim : dim + 1]) if len(heard[0]) == 1 else ((1,),)  # a batch of one, or a single step
    for path, call in heard[0]:
        found, given = f"time_dim={time_dim} of an output of shape {out}", call.input_shape
        if neurons[path].style == "sequence":
            again = [c.number for some in heard[1:] for p, c in some if p == path]
            if call.number in again:
                found, expected = "time_dim of a layer that is called at every step", "a call for the whole sequence"
                raise HistoryError(spot.name, found, expected, "leave time_dim out: one call has one step")
            if given == out and dim:
                found = f"{found} before neuron {path!r}, whose time is dimension 0"
                raise ShapeError(spot.name, found, "the dimension that is time for the neuron", "leave time_dim out")
        elif len(given) >= len(out):
            found = f"{found}, of which a step of neuron {path!r} takes {given}: not a slice of it"
            fix = "leave time_dim out of a layer that is called at every step; where time and batch are flattened into "
            fix += "one dimension, move the layer into the loop"
            raise HistoryError(spot.name, found, "time in a dimension of its own", fix)
        elif given != one and given[:1] in alone and len(given) > 1 and len(one) == 1 + space:
            found = f"{found}, of which a step of neuron {path!r} takes {given}: its batch may be flattened with time"
            fix = "pass an example of two samples or more, all of them as long; a layer that sees time and batch in "
            fix += "one dimension cannot be delayed: move it into the loop"
            raise HistoryError(spot.name, found, "time in a dimension of its own", fix)


def whole_policy(spot: Spot, reset: str) -> Policy:
    """Name the policy of whole sequences, as far as nothing else is known; nobody is told by hand where one ends."""
    if reset == "manual":
        raise ConfigError(
            spot.name, "reset='manual' and a layer that is called with whole sequences", OF_WHOLE, ASK_WHOLE
        )
    return "carried" if spot.carried else "manual"  # SequentialState may feed one sequence in several pieces
