"""What is asked before a checkpoint is written: which model, by which process, and whether it could be loaded."""

from __future__ import annotations

import json
from typing import Any

import torch
from torch import Tensor, nn

from delaykit.attaching.wiring import Wrapping
from delaykit.errors import CheckpointError, DelaykitError
from delaykit.interfaces import Delay
from delaykit.wrapping.checkpoint.plan_json import check_records, to_json
from delaykit.wrapping.controls import neuron_decays, wrapped_sites

WHERE = "dk.save"


def innermost(net: nn.Module) -> tuple[nn.Module, bool]:
    """Take a model out of ``DistributedDataParallel`` and ``torch.compile``; tell whether this process writes it.

    Every rank holds the same DDP model, or a part of the same one under ``fully_shard``, and rank 0 writes it. A bare
    model may differ from rank to rank: whoever calls writes it.
    """
    writes = True
    while True:
        if isinstance(net, nn.parallel.DistributedDataParallel):
            writes = torch.distributed.get_rank(net.process_group) == 0
            net = net.module
        elif isinstance(getattr(net, "_orig_mod", None), nn.Module):
            net = net._orig_mod  # type: ignore[assignment]
        else:
            spread = any(map(_is_spread, net.parameters())) if isinstance(net, nn.Module) else False
            return net, writes and not (spread and torch.distributed.get_rank() != 0)


def whole(value: Tensor) -> Tensor:
    """Return a tensor with all its values; one that is spread over processes is gathered by all of them together."""
    return value.full_tensor().detach() if _is_spread(value) else value.detach()  # type: ignore[attr-defined]


def as_spread(value: Tensor, like: Tensor) -> Tensor:
    """Return this process's part of ``value`` as ``like`` is spread; ``value`` itself where it is not."""
    if not _is_spread(like) or _is_spread(value):
        return value
    from torch.distributed.tensor import distribute_tensor

    own = value.to(like.device, like.dtype)
    return distribute_tensor(own, like.device_mesh, like.placements)  # type: ignore[attr-defined]


def _is_spread(value: Tensor) -> bool:
    return hasattr(value, "full_tensor")  # a DTensor, which is imported only where there is one


def check_loadable(net: nn.Module, wrapping: Wrapping, extras: dict[str, Tensor]) -> None:
    """Refuse to write what could not be read again.

    Args:
        net: the wrapped model.
        wrapping: its record.
        extras: tensors of the components.

    Raises:
        CheckpointError: with what stands in the way.
    """
    if any(isinstance(m, Delay) and m.holds_weight for m in net.modules()):
        fix = "save before making it compact, load, and make it compact again"
        raise CheckpointError(WHERE, "compact connections", "the components that the model was wrapped with", fix)
    decays = {part.where: part for part in neuron_decays(net)}
    planned = {entry.site.name for plan in wrapping.plans for entry in plan} | {c.name for c in wrapping.constants}
    sites = _sites(net)
    apart = [site.name for site in sites if site.attachment.scope is not wrapping.scope]
    if apart:
        found = f"connections that were wrapped apart, in a part of the model ({', '.join(apart)})"
        fix = "save that part by itself, or unwrap it and wrap the whole model in one call"
        raise CheckpointError(WHERE, found, "connections wrapped with this model", fix)
    lost = sorted(planned - {site.name for site in sites} - set(decays))
    if lost:
        found = f"no wrapped connection or neuron at {', '.join(lost)}: it was replaced after wrapping"
        raise CheckpointError(WHERE, found, "all that the plan names", "replace it first, then call dk.wrap_")
    for name in decays.keys() - {c.name for c in wrapping.constants}:
        found, fix = f"{name}, wrapped apart, in a part of the model", "wrap the whole model in one call"
        raise CheckpointError(WHERE, found, "neurons wrapped with this model", fix)
    for key, value in extras.items():
        if not bool(torch.isfinite(value).all()):
            fix = "go back to the checkpoint before, and lower delay_lr or clip gradients"
            raise CheckpointError(WHERE, f"{key} with NaN or infinite values", "finite values", fix)
    for name, part in [*((site.name, site.synapse) for site in sites), *decays.items()]:
        try:
            part.check()
        except DelaykitError as error:
            raise CheckpointError(WHERE, f"{name}: {error.found}", error.expected, error.fix) from error
    _check_plans(wrapping.plans)


def _sites(net: nn.Module) -> list[Any]:
    try:
        return wrapped_sites(net)
    except DelaykitError:
        return []


def _check_plans(plans: list[Any]) -> None:
    """Refuse a component whose config is not JSON both ways."""
    for entry in (entry for plan in plans for entry in plan):
        where = f"{WHERE}, {entry.site.name}"
        try:
            record = json.loads(json.dumps(to_json(entry), allow_nan=False))
            for component, config in zip(record["components"], entry.configs, strict=True):
                type(config).from_json(component["config"])
        except DelaykitError:
            raise
        except (TypeError, ValueError) as error:
            found = f"a config that is not JSON both ways ({error!s:.300})"
            fix = "mend to_json and from_json of the component's config"
            raise CheckpointError(where, found, "plain numbers, strings, booleans and lists", fix) from error
        check_records([record], where)
