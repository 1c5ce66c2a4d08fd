"""Save and load what delaykit added: tensors as safetensors, the rest as JSON. Nothing is ever unpickled."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from delaykit.attaching.root import check_shared, is_extra, wrapping_of
from delaykit.errors import CheckpointError, DelaykitError
from delaykit.interfaces import Delay
from delaykit.wrapping.apply import unwrap_, wrap_
from delaykit.wrapping.controls import wrapped_sites
from delaykit.wrapping.prunings import remembered, remind_, split
from delaykit.wrapping.record import WRITTEN, is_record, plan_from, to_json

FORMAT = 1


def save(net: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the delays and other parts of a wrapped model to ``path.safetensors`` and ``path.json``.

    The model's own weights are not in it: save those with ``torch.save(net.state_dict(), ...)`` or any other way.
    A save that is interrupted leaves a checkpoint that :func:`load` reads, the earlier one or the new one.

    Args:
        net: a wrapped model.
        path: file name without ending; folders are made.

    Raises:
        CheckpointError: ``net`` is not a wrapped model.

    Example:
        >>> import tempfile, torch, delaykit as dk
        >>> path = f"{tempfile.mkdtemp()}/delays"
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 2))
        >>> _ = dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", init=1.5), reset="manual")})
        >>> dk.save(net, path)
    """
    wrapping = wrapping_of(net)
    if wrapping is None:
        raise CheckpointError("dk.save", "a model that is not wrapped", "the model given to dk.wrap_")
    if any(isinstance(m, Delay) and m.holds_weight for m in net.modules()):
        fix = "save before making it compact, load, and make it compact again"
        raise CheckpointError("dk.save", "compact connections", "the components that the model was wrapped with", fix)
    aliases, tensors = _without_aliases({k: v for k, v in net.state_dict().items() if is_extra(k)})
    payload = save_tensors(tensors | remembered(net))
    entries = [entry for plan in wrapping.plans for entry in plan]
    meta = {
        "format": FORMAT,
        "writer": "delaykit",
        "sites": [to_json(entry) for entry in entries],
        "aliases": aliases,
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    base = Path(path)
    base.parent.mkdir(parents=True, exist_ok=True)
    files = {_tensor_file(base): payload, _meta_file(base): json.dumps(meta, indent=1).encode()}
    for path, content in files.items():
        _part(path).write_bytes(content)
    for path in files:  # the .json last: until then its part tells that these tensors are whole
        os.replace(_part(path), path)


def load(net: nn.Module, path: str | os.PathLike[str]) -> nn.Module:
    """Read what :func:`save` wrote into ``net``; a bare model is wrapped first, as it was when saved.

    No example is needed: reset policies, time dimensions and streams are part of the checkpoint.

    Args:
        net: the same model, bare or wrapped with the same components.
        path: file name without ending.

    Returns:
        ``net``.

    Raises:
        CheckpointError: a file is missing, truncated, changed, not delaykit's, from a newer version, or does not fit.

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
    base = Path(path)
    meta, payload = _read_pair(base)
    prunings, tensors = split(_tensors_of(_tensor_file(base), payload))
    for alias, key in meta["aliases"].items():
        if key not in tensors:
            raise CheckpointError(str(base), f"{alias} as another name of {key}, which is not there", WRITTEN)
        tensors[alias] = tensors[key]
    fresh = wrapping_of(net) is None
    try:
        if fresh:
            unused = torch.Generator().manual_seed(0)  # initial values are overwritten: leave the global one alone
            wrap_(net, plan_from(net, meta["sites"], tensors, str(base)), generator=unused)
        before = remembered(net)
        remind_(net, prunings, str(base))
        try:
            _fill(net, tensors, base)
        except DelaykitError:
            remind_(net, before, str(base))
            raise
    except DelaykitError as error:
        if fresh and wrapping_of(net) is not None:
            unwrap_(net)
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            str(base), f"a checkpoint that does not fit this model ({error})", "the model it was saved from"
        ) from error
    return net


def _fill(net: nn.Module, tensors: dict[str, Tensor], base: Path) -> None:
    own = {k: v for k, v in net.state_dict(keep_vars=True).items() if is_extra(k)}
    missing, unknown = sorted(set(own) - set(tensors)), sorted(set(tensors) - set(own))
    if missing or unknown:
        found = f"missing {missing[:3]} and unknown {unknown[:3]}"
        raise CheckpointError(
            str(base), found, "the same sites and components", "wrap the model as it was wrapped when saved"
        )
    for key, value in own.items():
        if value.shape != tensors[key].shape:
            found = f"{key} of shape {tuple(tensors[key].shape)}"
            raise CheckpointError(
                str(base), found, f"shape {tuple(value.shape)}", "load into the model it was saved from"
            )
        if tensors[key].is_floating_point() != value.is_floating_point():
            raise CheckpointError(
                str(base), f"{key} of {tensors[key].dtype}", f"{value.dtype}", "use an older checkpoint"
            )
        if not bool(torch.isfinite(tensors[key]).all()):
            raise CheckpointError(
                str(base), f"{key} with NaN or infinite values", "finite values", "use an older checkpoint"
            )
    check_shared(own, tensors, str(base))
    before = {key: value.detach().clone() for key, value in own.items()}
    _copy_(own, tensors)
    try:
        for site in wrapped_sites(net):
            site.synapse.check()
    except DelaykitError:
        _copy_(own, before)
        raise


@torch.no_grad()
def _copy_(targets: dict[str, Tensor], values: dict[str, Tensor]) -> None:
    for key, target in targets.items():
        target.copy_(values[key])


def _without_aliases(tensors: dict[str, Tensor]) -> tuple[dict[str, str], dict[str, Tensor]]:
    first: dict[tuple[int, Any], str] = {}
    aliases: dict[str, str] = {}
    kept: dict[str, Tensor] = {}
    for key, value in tensors.items():
        name = first.setdefault((value.data_ptr(), value.shape), key) if value.numel() else key
        if name == key:
            kept[key] = value.detach().contiguous().cpu()
        else:
            aliases[key] = name
    return aliases, kept


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(str(path), "no such file", WRITTEN) from None
    except (ValueError, OSError, RecursionError) as error:
        raise CheckpointError(str(path), f"a file that is not JSON ({error})", WRITTEN) from None
    version = meta.get("format") if isinstance(meta, dict) and meta.get("writer") == "delaykit" else None
    if type(version) is not int or version < 1:
        raise CheckpointError(str(path), "JSON that delaykit did not write", WRITTEN)
    if version > FORMAT:
        raise CheckpointError(str(path), f"format {version}", f"format {FORMAT} or older", "install a newer delaykit")
    kinds = {"sha256": str, "aliases": dict, "sites": list}
    fits = all(isinstance(meta.get(key), kind) for key, kind in kinds.items())
    fits = fits and all(isinstance(key, str) for key in meta["aliases"].values())
    if not fits or not meta["sites"] or not all(is_record(site) for site in meta["sites"]):
        raise CheckpointError(str(path), "damaged entries", WRITTEN)
    return meta


def _read_pair(base: Path) -> tuple[dict[str, Any], bytes]:
    """Read both files; where a save was interrupted between them, the part that belongs to the tensors."""
    whole, part, path = _meta_file(base), _part(_meta_file(base)), _tensor_file(base)
    meta = _read_meta(whole if whole.exists() or not part.exists() else part)
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise CheckpointError(str(path), f"no readable file ({error})", "the .safetensors beside the .json") from None
    digest = hashlib.sha256(payload).hexdigest()
    if meta["sha256"] != digest and part.exists():
        meta = _read_meta(part)
    if meta["sha256"] != digest:
        fix = "copy both files again"
        raise CheckpointError(str(path), "a truncated or changed file", "the tensors that belong to the .json", fix)
    return meta, payload


def _tensors_of(path: Path, payload: bytes) -> dict[str, Tensor]:
    try:
        return load_tensors(payload)
    except SafetensorError as error:
        raise CheckpointError(str(path), f"damaged tensors ({error})", "a safetensors file") from None


def _tensor_file(base: Path) -> Path:
    return base.with_name(base.name + ".safetensors")


def _meta_file(base: Path) -> Path:
    return base.with_name(base.name + ".json")


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")
