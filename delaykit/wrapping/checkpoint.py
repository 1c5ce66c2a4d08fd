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

from delaykit import registry
from delaykit.errors import CheckpointError, DelaykitError
from delaykit.interfaces import ComponentConfig
from delaykit.wrapping.apply import wrap_
from delaykit.wrapping.plan import SitePlan, is_wrapped
from delaykit.wrapping.root import is_extra, wrapping_of
from delaykit.wrapping.rules import At, Recurrent

FORMAT = 1


def save(net: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write the delays and other parts of a wrapped model to ``path.safetensors`` and ``path.json``.

    The model's own weights are not in it: save those with ``torch.save(net.state_dict(), ...)`` or any other way.
    Both files are written whole or not at all.

    Args:
        net: a wrapped model.
        path: file name without ending; folders are made.

    Raises:
        CheckpointError: ``net`` is not a wrapped model.
    """
    wrapping = wrapping_of(net)
    if wrapping is None:
        raise CheckpointError("dk.save", "a model that is not wrapped", "the model given to dk.wrap_")
    aliases, tensors = _without_aliases({k: v for k, v in net.state_dict().items() if is_extra(k)})
    payload = save_tensors(tensors)
    entries = [entry for plan in wrapping.plans for entry in plan]
    meta = {
        "format": FORMAT,
        "writer": "delaykit",
        "sites": [_site_json(entry) for entry in entries],
        "aliases": aliases,
        "sha256": hashlib.sha256(payload).hexdigest(),
    }
    base = Path(path)
    base.parent.mkdir(parents=True, exist_ok=True)
    _write(base.with_name(base.name + ".safetensors"), payload)
    _write(base.with_name(base.name + ".json"), json.dumps(meta, indent=1).encode())


def load(net: nn.Module, path: str | os.PathLike[str], example: Any = None) -> nn.Module:
    """Read what :func:`save` wrote into ``net``; a bare model is wrapped first, as it was when saved.

    Args:
        net: the same model, bare or wrapped with the same components.
        path: file name without ending.
        example: as in :func:`delaykit.wrap_`, for a bare model; without it the saved reset policies are used.

    Returns:
        ``net``.

    Raises:
        CheckpointError: a file is missing, truncated, changed, not delaykit's, from a newer version, or does not fit.
    """
    base = Path(path)
    meta = _read_meta(base.with_name(base.name + ".json"))
    tensors = _read_tensors(base.with_name(base.name + ".safetensors"), meta["sha256"])
    for alias, key in meta["aliases"].items():
        tensors[alias] = tensors[key]
    fresh = wrapping_of(net) is None
    try:
        if fresh:
            wrap_(net, _rules(meta, base), example=example)
        _fill(net, tensors, base)
    except DelaykitError as error:
        if fresh and wrapping_of(net) is not None:
            from delaykit.wrapping.apply import unwrap_

            unwrap_(net)
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            str(base), f"a checkpoint that does not fit this model ({error})", "the model it was saved from"
        ) from error
    return net


def _site_json(entry: SitePlan) -> dict[str, Any]:
    components = [{"kind": c.kind, "name": c.name, "config": c.to_json()} for c in entry.configs]
    out: dict[str, Any] = {"site": entry.site.name, "components": components}
    out |= {"reset": entry.timing.policy, "time_dim": entry.timing.time_dim, "streams": entry.timing.streams}
    if entry.recurrent is not None:
        out["recurrent"] = {"neuron": entry.spot.path, "size": entry.site.pre, "bias": entry.recurrent.bias}
    return out


def _rules(meta: dict[str, Any], base: Path) -> dict[str, Any]:
    rules: dict[str, Any] = {}
    for site in meta["sites"]:
        configs = [_config(c, base) for c in site["components"]]
        if site.get("streams", 1) != 1:
            fix = "wrap the model with dk.wrap_(net, rules, example=...) first, then load"
            raise CheckpointError(
                str(base), f"{site['site']!r}, a layer shared by several streams", "a wrapped model", fix
            )
        if "recurrent" in site:
            new = site["recurrent"]
            weight = torch.zeros(int(new["size"]), int(new["size"]))
            rules[new["neuron"]] = Recurrent(*configs, weight=weight, bias=bool(new["bias"]), reset=site["reset"])
        else:
            rules[site["site"]] = At(*configs, reset=site["reset"], time_dim=site["time_dim"])
    return rules


def _config(record: dict[str, Any], base: Path) -> ComponentConfig:
    try:
        config = registry.resolve(record["kind"], record["name"])
    except DelaykitError as error:
        raise CheckpointError(str(base), f"component {record['name']!r}: {error}", "an installed component") from error
    return config.from_json(record["config"])  # type: ignore[attr-defined]


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
        if not bool(torch.isfinite(tensors[key]).all()):
            raise CheckpointError(
                str(base), f"{key} with NaN or infinite values", "finite values", "use an older checkpoint"
            )
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(tensors[key])


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
        raise CheckpointError(str(path), "no such file", "a checkpoint written by dk.save") from None
    except (ValueError, OSError) as error:
        raise CheckpointError(
            str(path), f"a file that is not JSON ({error})", "a checkpoint written by dk.save"
        ) from None
    if not isinstance(meta, dict) or meta.get("writer") != "delaykit" or not isinstance(meta.get("format"), int):
        raise CheckpointError(str(path), "JSON that delaykit did not write", "a checkpoint written by dk.save")
    if meta["format"] > FORMAT:
        fix = "install a newer delaykit"
        raise CheckpointError(str(path), f"format {meta['format']}", f"format {FORMAT} or older", fix)
    shape = {"sites": list, "aliases": dict, "sha256": str}
    bad = [key for key, kind in shape.items() if not isinstance(meta.get(key), kind)]
    if bad or not all(_is_site(s) for s in meta["sites"]):
        raise CheckpointError(str(path), f"damaged entries {bad or ['sites']}", "a checkpoint written by dk.save")
    return meta


def _is_site(site: Any) -> bool:
    if not (isinstance(site, dict) and {"site", "components", "reset", "time_dim"} <= set(site)):
        return False
    parts = site["components"]
    return isinstance(parts, list) and all(
        isinstance(c, dict) and {"kind", "name", "config"} <= set(c) and isinstance(c["config"], dict) for c in parts
    )


def _read_tensors(path: Path, digest: str) -> dict[str, Tensor]:
    try:
        payload = path.read_bytes()
    except OSError as error:
        raise CheckpointError(str(path), f"no readable file ({error})", "the .safetensors beside the .json") from None
    if hashlib.sha256(payload).hexdigest() != digest:
        fix = "copy both files again"
        raise CheckpointError(str(path), "a truncated or changed file", "the tensors that belong to the .json", fix)
    try:
        return load_tensors(payload)
    except SafetensorError as error:
        raise CheckpointError(str(path), f"damaged tensors ({error})", "a safetensors file") from None


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    os.replace(part, path)


__all__ = ["is_wrapped", "load", "save"]
