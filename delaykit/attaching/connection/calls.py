"""One call of a connection, checked and run: a time step, or a whole sequence."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from delaykit.attaching.attachment import Attachment
from delaykit.attaching.exporters import refuse_recordings
from delaykit.attaching.history.beginnings import Ends
from delaykit.attaching.history.connection_history import History
from delaykit.errors import ShapeError
from delaykit.functional.eager import eager
from delaykit.functional.inputs import check_tensors, refuse_transforms
from delaykit.synapse import Product, Synapse

HALF = (torch.float16, torch.bfloat16)


def step_connection(
    synapse: Synapse, attachment: Attachment, product: Product, input: Tensor, history: History
) -> Tensor:
    """Run one time step: ``(..., pre, *space) -> (..., post, *space)``.

    Args:
        synapse: of the connection.
        attachment: its timing, and what its last input was.
        product: the module's own linear map.
        input: spikes of this step, ``(..., pre, *space)``.
        history: what was under way; goes one step on.
    """
    if torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None:
        refuse_recordings(attachment.where)
    return _step(synapse, attachment, product, input, history)


@eager  # a history is a side effect
def _step(synapse: Synapse, attachment: Attachment, product: Product, input: Tensor, history: History) -> Tensor:
    seen = _signature(input, product)
    if seen is not None and seen == attachment.seen and not torch.is_autocast_enabled(input.device.type):
        refuse_transforms(attachment.where, input, product.weight, remembers=True)
        return history.step(synapse, product, input, attachment.timing.streams)
    spikes = _checked(synapse, attachment.where, product, input)
    refuse_transforms(attachment.where, spikes, product.weight, remembers=True)
    if spikes.dtype in HALF and spikes.device.type == "cpu":
        fix = "call net.float(), or run on a GPU; under autocast delays run in float32 by themselves"
        raise ShapeError(attachment.where, f"a step of {spikes.dtype} on the CPU", "float32 or float64", fix)
    lead = spikes.shape[: spikes.ndim - 1 - product.space]
    if len(lead) == 1:  # a view would be a node of the graph, at every step
        batch, attachment.seen = spikes, seen if spikes is input else None
    else:
        batch = spikes.reshape(lead.numel(), *spikes.shape[len(lead) :])  # -1 would not know where a dimension is 0
        history.each = lead[1:].numel()
    if torch.is_autocast_enabled(spikes.device.type):
        with _single(spikes):
            output = history.step(synapse, product, batch, attachment.timing.streams)
    else:
        output = history.step(synapse, product, batch, attachment.timing.streams)
    return output if batch is spikes else output.reshape(*lead, *output.shape[1:])


def _signature(input: Tensor, product: Product) -> tuple[Any, ...] | None:
    """Say all that an input's checks ask of it; None where that is not said in a few words."""
    if type(input) is not Tensor or input.is_nested or input.layout is not torch.strided:
        return None
    return input.shape, input.dtype, input.device, None if product.weight is None else product.weight.dtype


def sequence_connection(
    synapse: Synapse, where: str, product: Product, input: Tensor, time_dim: int, ends: Ends | None = None
) -> Tensor:
    """Run a whole sequence whose time runs along ``time_dim``; tell ``ends`` of it.

    ``torch.compile`` takes those into its graph whose engine is made of taps alone; others break it there.
    """
    if torch.compiler.is_compiling():
        refuse_recordings(where)
        traced = synapse.traced_engine(product)
        if traced is None:
            return _apart(synapse, where, product, input, time_dim, ends)
        return over_time(synapse, where, product, input, time_dim, traced.sequence)
    return _at_once(synapse, where, product, input, time_dim, ends)


def _at_once(synapse: Synapse, where: str, product: Product, input: Tensor, time_dim: int, ends: Ends | None) -> Tensor:
    def run(spikes: Tensor) -> Tensor:
        engine = synapse.engine(product)
        if ends is not None:
            ends.begin(spikes, engine.reach())
        return engine.sequence(spikes)

    return over_time(synapse, where, product, input, time_dim, run)


_apart = eager(_at_once)  # its checks look at values


def over_time(
    synapse: Synapse, where: str, product: Product, input: Tensor, time_dim: int, run: Callable[[Tensor], Tensor]
) -> Tensor:
    """Check a sequence whose time runs along ``time_dim``, and run it.

    Args:
        synapse: of the connection.
        where: site name, for messages.
        product: the module's own linear map.
        input: ``(..., channel, *space)``, time among the first dimensions.
        time_dim: which of them.
        run: ``(time, batch, pre, *space) -> (time, batch, post, *space)``.
    """
    refuse_recordings(where)
    spikes = _checked(synapse, where, product, input)
    refuse_transforms(where, spikes, product.weight)
    found, rank = f"input of shape {tuple(input.shape)}", spikes.ndim - 1 - product.space
    if rank < 1:
        raise ShapeError(where, found, "a sequence (time, batch, channel)", "add the time dimension")
    if not -spikes.ndim <= time_dim < rank or time_dim % spikes.ndim >= rank:
        fix = "wrap with the time_dim that is time in this input"
        raise ShapeError(where, f"{found} and time_dim={time_dim}", "time in a dimension before the channel", fix)
    spikes = spikes.movedim(time_dim, 0)
    lead = spikes.shape[1:rank]
    batch = spikes.reshape(spikes.shape[0], lead.numel(), *spikes.shape[rank:])
    with _single(spikes):
        output = run(batch)
    return output.reshape(output.shape[0], *lead, *output.shape[2:]).movedim(0, time_dim)


def _checked(synapse: Synapse, where: str, product: Product, input: Tensor) -> Tensor:
    channel_dim = -1 - product.space
    if type(input) is not Tensor or input.layout is not torch.strided or input.is_nested or input.is_meta:
        check_tensors(where, input=input)
    elif not input.is_floating_point():
        check_tensors(where, input=input)
    if input.ndim < 1 + product.space or input.shape[channel_dim] != synapse.site.pre:
        wanted = "(..., channel" + ", space" * product.space + f") with {synapse.site.pre} channels"
        raise ShapeError(where, f"input of shape {tuple(input.shape)}", wanted, "check the layer before it")
    if torch.is_autocast_enabled(input.device.type):
        return input.to(torch.float32 if product.weight is None else product.weight.dtype)
    if product.weight is not None and input.dtype != product.weight.dtype:
        fix = "convert the input (.float() or .double()), or the model; snnTorch's surrogates always return float32"
        raise ShapeError(where, f"input of {input.dtype}", f"{product.weight.dtype}, that of its weight", fix)
    return input


def _single(spikes: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Keep delays and their products in float32 under autocast, at every delay and in every kind of connection."""
    kind = spikes.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else contextlib.nullcontext()
