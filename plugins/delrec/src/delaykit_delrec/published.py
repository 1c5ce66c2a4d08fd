"""Read the checkpoints of the published implementations into a wrapped net.

| | weight | delays | spread |
|---|---|---|---|
| DelRec | ``recurrent_weights`` (post, pre) | ``recurrent_delays`` (pre,) or (post, pre), steps | ``p_spread`` (pre,) |
| DCLS | ``weight`` (post, pre, 1) | ``P`` (1, post, pre, 1), K//2 - delay | ``SIG``, shaped like P |
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from delaykit import CheckpointError, ConfigError, DelayRangeError, checks
from delaykit.sealed import read_file
from delaykit_delrec.dcls import DCLSDelay
from delaykit_delrec.delay import DelRecDelay

LAYOUTS = {
    "delrec": (("recurrent_weights", "recurrent_delays"), "p_spread"),
    "dcls": (("weight", "P"), "SIG"),
}


class Published(NamedTuple):
    """One layer of a published checkpoint, in this package's terms.

    Args:
        layout: ``delrec`` or ``dcls``.
        weight: (post, pre).
        delays: ``delrec``: delays in steps of the recurrent connection's own clock; ``dcls``: positions P, from which
            ``K//2 - P`` is the delay.
        spread: ``delrec``: logits p of the learned spreads, (pre,); ``dcls``: SIG, (post, pre); None where absent.
        bias: (post,) or None.
    """

    layout: str
    weight: Tensor
    delays: Tensor
    spread: Tensor | None
    bias: Tensor | None


@checks.annotated
def read_published(source: str | Path | Mapping[str, Any]) -> dict[str, Published]:
    """Find the delayed layers of a published checkpoint.

    Args:
        source: a state dict, or a file that ``torch.save`` wrote; it is read without running any code it may hold.
            A state dict inside a dict under ``model_state_dict``, ``state_dict`` or ``model`` is found, too.

    Returns:
        For each layer's name in the checkpoint (``""`` for the root) its tensors.

    Raises:
        CheckpointError: not a checkpoint, none of the two layouts, or tensors that do not belong together.

    Example:
        >>> state = {"rec.recurrent_weights": torch.eye(3), "rec.recurrent_delays": torch.tensor([0.0, 4.5, 9.0])}
        >>> read_published(state)["rec"].delays.tolist()
        [0.0, 4.5, 9.0]
    """
    where = str(source) if isinstance(source, (str, Path)) else "checkpoint"
    state = _state_dict(source, where)
    layers = {}
    for layout, (keys, spread_key) in LAYOUTS.items():
        for name in state:
            prefix, _, last = name.rpartition(".")
            at = f"{prefix}." if prefix else ""
            if last == keys[1] and at + keys[0] in state:
                weight, delays = state[at + keys[0]], state[name]
                spread, bias = state.get(at + spread_key), state.get(at + "bias")
                layers[prefix] = _layer(f"{where}: {prefix or 'root'}", layout, weight, delays, spread, bias)
    if not layers:
        expected = "keys recurrent_weights and recurrent_delays (DelRec), or weight and P (DCLS)"
        raise CheckpointError(where, f"keys {', '.join(list(state)[:6])}", expected, "pass the state dict of the model")
    return layers


def _state_dict(source: str | Path | Mapping[str, Any], where: str) -> dict[str, Tensor]:
    loaded: Any = source
    if isinstance(source, (str, Path)):
        try:
            loaded = torch.load(io.BytesIO(read_file(source)), map_location="cpu", weights_only=True)
        except Exception as error:  # torch and pickle raise what they like here
            fix = "save the state_dict again with torch.save"
            raise CheckpointError(
                where or "read_published", f"{type(error).__name__}: {error}", "a file of tensors by torch.save", fix
            ) from error
    for key in ("model_state_dict", "state_dict", "model"):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
    if not isinstance(loaded, Mapping):
        raise CheckpointError(where, type(loaded).__name__, "a state dict", "save model.state_dict()")
    return {str(key): value.detach() for key, value in loaded.items() if isinstance(value, Tensor)}


def _layer(
    where: str, layout: str, weight: Tensor, delays: Tensor, spread: Tensor | None, bias: Tensor | None
) -> Published:
    if layout == "dcls":
        if weight.dim() != 3 or weight.shape[-1] != 1 or delays.shape != (1, *weight.shape):
            found = f"weight {tuple(weight.shape)} and P {tuple(delays.shape)}"
            expected = "(post, pre, 1) and (1, post, pre, 1): one element for each synapse, no groups"
            raise CheckpointError(where, found, expected, "check that the file is one of the published ones")
        weight, delays = weight[..., 0], delays[0, ..., 0]
        spread = None if spread is None else spread.reshape(weight.shape)
    else:
        square = weight.dim() == 2 and weight.shape[0] == weight.shape[1]
        if not square or delays.shape not in (weight.shape, weight.shape[1:], torch.Size(())):
            found = f"weights {tuple(weight.shape)} and delays {tuple(delays.shape)}"
            fix = "check that the file is one of the published ones"
            raise CheckpointError(where, found, "(neuron, neuron) and (neuron,) or (neuron, neuron)", fix)
        if spread is not None and spread.numel() != weight.shape[1]:
            fix = "check that the file is one of the published ones"
            raise CheckpointError(where, f"p_spread {tuple(spread.shape)}", f"({weight.shape[1]},)", fix)
        spread = None if spread is None else spread.flatten()
    if not all(bool(torch.isfinite(x).all()) for x in (weight, delays)):
        raise CheckpointError(where, "NaN or infinite weights or delays", "finite ones", "use another checkpoint")
    return Published(layout, weight, delays, spread, bias)


@checks.annotated
@torch.no_grad()
def load_published_(connection: nn.Module, layer: Published, sigma: float | None = None) -> None:
    """Copy weights, delays and spreads of one published layer into one wrapped connection, in place.

    Args:
        connection: a Linear (also ``neuron.recurrent`` of snnTorch) that was wrapped with ``DelRec`` or ``DCLS``.
        layer: from :func:`read_published`.
        sigma: the spread at which a DelRec checkpoint was saved, which the published file does not hold; None: 0. DCLS
            files hold theirs.

    Raises:
        CheckpointError: the connection is not of the layer's kind or size, or a delay is out of its bounds.
    """
    if not isinstance(layer, Published):
        fix = "pass one of the layers that read_published returns"
        raise ConfigError("load_published_, second argument", f"a {type(layer).__name__}", "a Published layer", fix)
    where = f"load_published_ ({layer.layout})"
    delay: Any = getattr(getattr(connection, "dk", None), "delay", None)
    kind = {"delrec": DelRecDelay, "dcls": DCLSDelay}[layer.layout]
    if not isinstance(delay, kind):
        raise CheckpointError(where, type(delay).__name__, kind.__name__, f"wrap with {kind.__name__[:-5]}(...) first")
    weight: Any = connection.weight
    if weight.shape != layer.weight.shape:
        fix = "build the model with the sizes of the file"
        raise CheckpointError(where, f"weight {tuple(layer.weight.shape)}", f"{tuple(weight.shape)}", fix)
    delays = layer.delays if layer.layout == "delrec" else delay.config.kernel_size // 2 - layer.delays
    if delays.numel() != delay.delay.numel() or getattr(delay, "offset", None) is not None:
        found = f"delays {tuple(delays.shape)}"
        raise CheckpointError(
            where, found, f"{tuple(delay.delay.shape)}", "wrap with the granularity of the checkpoint"
        )
    spread = _spread_of(layer, delay, where) if layer.layout == "dcls" else sigma or 0.0
    if layer.layout == "delrec" and layer.spread is not None and delay.spread_logit is None:
        raise CheckpointError(where, "p_spread", "no learned spread", "wrap with DelRec(learn_spread=True)")
    before = delay.delay.clone()
    delay.delay.copy_(delays.reshape(delay.delay.shape))
    try:
        delay.check()
    except DelayRangeError as error:
        delay.delay.copy_(before)
        raise CheckpointError(where, str(error), "delays within the bounds", "raise max_delay or kernel_size") from None
    weight.copy_(layer.weight)
    delay.sigma.fill_(spread)
    if layer.layout == "delrec" and layer.spread is not None:
        delay.spread_logit.copy_(layer.spread)
    bias: Any = getattr(connection, "bias", None)
    if layer.bias is not None and bias is not None:
        bias.copy_(layer.bias)


def _spread_of(layer: Published, delay: Any, where: str) -> float:
    """Return the one spread that all synapses of a DCLS layer share."""
    if layer.spread is None or delay.config.version == "v1":
        return 0.0
    low, high = float(layer.spread.abs().min()), float(layer.spread.abs().max())
    if high - low > 1e-6 * high:
        fix = "set SIG to one number, or use another file"
        raise CheckpointError(where, f"spreads SIG of {low:g}..{high:g}", "one spread for all synapses", fix)
    return high
