"""Save and load what delaykit added, tensors and plan in one safetensors file. Nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from delaykit import checks
from delaykit.attaching.root import check_shared, is_extra, wrapping_of
from delaykit.attaching.wiring import Wrapping
from delaykit.errors import CheckpointError, DelaykitError
from delaykit.sealed import commit, read_file
from delaykit.wrapping.apply import unwrap_, wrap_
from delaykit.wrapping.checkpoint.container import FORMAT, WRITTEN, pack, unpack
from delaykit.wrapping.checkpoint.extra_states import check_tensors, extra_states, handed_over, state_dict_tensors
from delaykit.wrapping.checkpoint.format_1 import former_plans, plan_of_pair
from delaykit.wrapping.checkpoint.plan_json import check_records, check_same, plan_from, to_json
from delaykit.wrapping.checkpoint.preconditions import as_spread, check_loadable, innermost, whole
from delaykit.wrapping.checkpoint.prunings import is_memory, remembered, remind_, split
from delaykit.wrapping.checkpoint.size_limit import bounded
from delaykit.wrapping.checkpoint.time_constants_json import (
    check_constants,
    check_same_constants,
    constants_from,
    constants_to_json,
)
from delaykit.wrapping.controls import neuron_decays, wrapped_sites


def save(net: nn.Module, path: str | os.PathLike[str], *, with_model: bool = False) -> None:
    """Write the delays and other parts of a wrapped model to ``path.safetensors``.

    The file is put in its place whole: a save that is interrupted, or that finds the disk full, leaves the earlier
    checkpoint, and several processes may save at once. Of a model in ``DistributedDataParallel`` rank 0 alone writes,
    and the other ranks go on at once; a compiled model is saved as the model that was compiled.

    Args:
        net: a wrapped model.
        path: file name without ending; folders are made.
        with_model: write the model's own weights, buffers and extra states (tensors), too. Without, save them as you
            always did.

    Raises:
        CheckpointError: ``net`` is not a wrapped model, or :func:`load` would refuse the file: a layer was replaced
            after wrapping, a part was wrapped apart, a delay is NaN. Or it cannot be written: no space, or an extra
            state that is no tensor.

    Example:
        >>> import tempfile, torch, delaykit as dk
        >>> path = f"{tempfile.mkdtemp()}/delays"
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> _ = dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", init=1.5), reset="manual")})
        >>> dk.save(net, path)
    """
    checks.flag("dk.save with_model", with_model)
    base, where = _base(path, "dk.save"), "dk.save"
    model, writes = innermost(net)
    wrapping = _wrapping(model, where)
    state = model.state_dict(keep_vars=True)
    chosen = {k: v for k, v in state.items() if (with_model or is_extra(k)) and not is_memory(k)}
    check_tensors(chosen, where)
    aliases, tensors = _without_aliases(chosen)
    tensors = {key: whole(value) for key, value in tensors.items()}  # all ranks take part in what is spread over them
    check_loadable(model, wrapping, {k: v for k, v in tensors.items() if is_extra(k)})
    if not writes:
        return
    sites = [to_json(entry) for plan in wrapping.plans for entry in plan]
    neurons = [constants_to_json(entry) for entry in wrapping.constants]
    meta = {"format": FORMAT, "writer": "delaykit", "model": with_model, "sites": sites, "aliases": aliases}
    meta |= {"neurons": neurons} if neurons else {}
    former = former_plans(base, _file(base))  # of format 1, whose tensors are overwritten
    commit(_file(base), pack(tensors | remembered(model), meta, where))
    for plan in former:
        plan.unlink(missing_ok=True)


def load(net: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Read what :func:`save` wrote into ``net``; a bare model is wrapped first, as it was when saved.

    No example is needed: reset policies, time dimensions and streams are part of the checkpoint. A file that was
    written with ``with_model=True`` gives the model its weights, too.

    Args:
        net: the same model, bare, or wrapped with the same components; how they begin (``init=``) plays no part.
        path: file name without ending.

    Returns:
        ``net``.

    Raises:
        CheckpointError: the file is missing, truncated, changed, not delaykit's, from a newer version, or does not
            fit; ``net`` is then as it was.

    Example:
        >>> import tempfile, torch, delaykit as dk
        >>> path = f"{tempfile.mkdtemp()}/delays"
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> _ = dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", init=1.5), reset="manual")})
        >>> dk.save(net, path)
        >>> bare = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> dk.status(dk.load(bare, path)).delays["0"].tolist()
        [[1.5, 1.5]]
    """
    base = _base(path, "dk.load")
    where, (model, _) = str(base), innermost(net)
    if not isinstance(model, nn.Module):
        fix = "pass the model first, then the file name"
        raise CheckpointError("dk.load", checks.shown(model), "a torch.nn.Module", fix)
    meta, tensors = _read(base)
    prunings, tensors = split(tensors)
    for alias, key in meta["aliases"].items():
        if key not in tensors:
            found = f"{alias!r:.80} as another name of {key!r:.80}, which is not there"
            raise CheckpointError(where, found, WRITTEN, "use an earlier checkpoint")
        tensors[alias] = tensors[key]
    known = wrapping_of(model)
    try:
        if known is None:
            _wrap_as_saved_(model, meta, tensors, where)
        else:
            check_same(known.plans, meta["sites"], where)
            check_same_constants(known.constants, meta["neurons"], where)
        _take_(model, meta, tensors, prunings, where)
    except DelaykitError as error:
        if known is None and wrapping_of(model) is not None:
            unwrap_(model)
        if isinstance(error, CheckpointError):
            raise
        found, fix = f"a checkpoint that does not fit this model ({error})", "load into the model it was saved from"
        raise CheckpointError(where, found, "the model it was saved from", fix) from error
    return net


def _base(path: Any, where: str) -> Path:
    base = Path(path) if checks.is_path(path) else Path()
    if base.name in ("", ".."):
        found, fix = f"{checks.shown(path)} for a file", "pass e.g. 'run/delays'"
        raise CheckpointError(where, found, "a file name without ending", fix)
    return base


def _wrapping(model: Any, where: str) -> Wrapping:
    wrapping = wrapping_of(model) if isinstance(model, nn.Module) else None
    if wrapping is not None:
        return wrapping
    if not isinstance(model, nn.Module):
        found = f"a {type(model).__name__}"
        raise CheckpointError(where, found, "a model given to dk.wrap_", "pass the model first, then the file name")
    inside = [name for name, module in model.named_modules() if wrapping_of(module) is not None]
    found, fix = "a model that is not wrapped", "call dk.wrap_(net, rules, example=...) first"
    if inside:
        found = f"a model of which {inside[0]!r} is wrapped, and not the whole"
        fix = f"call it with that part, net.{inside[0]}"
    raise CheckpointError(where, found, "the model given to dk.wrap_", fix)


def _read(base: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read a checkpoint of any format and check its plan to the last value."""
    path = _file(base)
    try:
        payload = read_file(path)
    except OSError as error:
        fix = "name a checkpoint without its ending"
        raise CheckpointError(str(path), f"no readable file ({error})", WRITTEN, fix) from None
    meta, tensors = unpack(payload, str(path))
    if meta is None:
        meta = plan_of_pair(base, payload)
    aliases = meta.get("aliases")
    if not isinstance(aliases, dict) or not all(isinstance(key, str) for key in aliases.values()):
        raise CheckpointError(str(base), "damaged entries", WRITTEN, "use an earlier checkpoint")
    meta.setdefault("neurons", [])  # files of before there were any
    check_constants(meta["neurons"], str(base))
    if meta.get("sites") != [] or not meta["neurons"]:
        check_records(meta.get("sites"), str(base))
    return meta, tensors


def _wrap_as_saved_(model: nn.Module, meta: dict[str, Any], tensors: dict[str, Tensor], where: str) -> None:
    unused = torch.Generator().manual_seed(0)  # initial values are overwritten: leave the global one alone
    there = sum(value.numel() for value in [*tensors.values(), *state_dict_tensors(model).values()])
    plan = plan_from(model, meta["sites"], tensors, where)
    plan = dataclasses.replace(plan, constants=constants_from(plan.neurons, meta["neurons"], where))
    with bounded(there, where):
        wrap_(model, plan, generator=unused)


def _take_(model: nn.Module, meta: dict[str, Any], tensors: dict[str, Tensor], prunings: Any, where: str) -> None:
    """Fill a wrapped model with everything in a file, or leave it as it was."""
    before = remembered(model)
    remind_(model, prunings, where)
    try:
        state = {k: v for k, v in state_dict_tensors(model).items() if not is_memory(k)}
        own = {k: v for k, v in state.items() if meta.get("model") or is_extra(k)}
        apart = extra_states(model) if meta.get("model") else {}
        _check_names({*own, *apart}, tensors, where)
        with handed_over(model, {k: v for k, v in tensors.items() if k in apart}, where):
            _fill_(model, own, tensors, where)
    except DelaykitError:
        remind_(model, before, where)
        raise


def _check_names(own: set[str], tensors: dict[str, Tensor], where: str) -> None:
    missing, unknown = sorted(own - set(tensors)), sorted(set(tensors) - own)
    if missing or unknown:
        found, fix = f"missing {missing[:3]} and unknown {unknown[:3]}", "load into the model that it was saved from"
        raise CheckpointError(where, found, "the same sites and components", fix)


def _fill_(model: nn.Module, own: dict[str, Tensor], tensors: dict[str, Tensor], where: str) -> None:
    for key, value in own.items():
        given, fix = tensors[key], "load into the model that it was saved from"
        if value.shape != given.shape:
            found = f"{key} of shape {tuple(given.shape)}"
            raise CheckpointError(where, found, f"shape {tuple(value.shape)}", fix)
        if given.is_floating_point() != value.is_floating_point():
            raise CheckpointError(where, f"{key} of {given.dtype}", f"{value.dtype}", fix)
        once = _once(value)
        if once is not None and not torch.equal(given, given[once].expand_as(given)):
            found = f"{key} of different values"
            raise CheckpointError(where, found, "one value: this model's tensor is expanded", fix)
        if is_extra(key) and not bool(torch.isfinite(given).all()):
            found = f"{key} with NaN or infinite values"
            raise CheckpointError(where, found, "finite values", "use an earlier checkpoint")
    check_shared(own, tensors, where)
    before = {key: value.detach().clone() for key, value in own.items()}
    _copy_(own, tensors)
    try:
        for site in wrapped_sites(model):
            site.synapse.check()
        for part in neuron_decays(model):
            part.check()
    except DelaykitError:
        _copy_(own, before)
        raise


@torch.no_grad()
def _copy_(targets: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for key, target in targets.items():
        once = _once(target)
        if once is None:
            target.copy_(as_spread(values[key], target))
        else:
            target[once].copy_(values[key][once])


def _once(value: Tensor) -> tuple[slice, ...] | None:
    """Return where an expanded tensor has each of its numbers once; None for any other."""
    if value.layout is not torch.strided:
        return None
    again = [stride == 0 and size > 1 for size, stride in zip(value.shape, value.stride(), strict=True)]
    return tuple(slice(0, 1) if one else slice(None) for one in again) if any(again) else None


def _without_aliases(tensors: dict[str, Tensor]) -> tuple[dict[str, str], dict[str, Tensor]]:
    first: dict[int, str] = {}
    aliases: dict[str, str] = {}
    kept: dict[str, Tensor] = {}
    for key, value in tensors.items():
        name = first.setdefault(id(value), key)
        if name == key:
            kept[key] = value
        else:
            aliases[key] = name
    return aliases, kept


def _file(base: Path) -> Path:
    return base.with_name(base.name + ".safetensors")
