"""Checkpoints that an earlier version wrote: they load, and the loaded net computes what that version's did.

One run is what :func:`delaykit.save` wrote, ``<net>.<label>.safetensors`` (in format 1 also ``.json``), and
``<net>.<label>.run.safetensors`` with the bare weights, an input and what came out.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save, save_file
from torch import Tensor, nn

import delaykit as dk
from delaykit.attaching.root import is_extra
from delaykit.testing.kit import VALUE_TOLERANCE, assert_equal
from delaykit.testing.nets.tiny import LIBRARIES, MORE_NETS, Record, TinyNet, input_spikes, tiny_nets
from delaykit.wrapping.checkpoint.container import DIGEST, PLAN, digest_of, unpack

BARE = "net."


def store_run(net: nn.Module, tiny: TinyNet, label: str, folder: Path) -> None:
    """Write a wrapped tiny net and one run of it into ``folder``; to be called by the version that is to be kept.

    Args:
        net: ``tiny.build()``, wrapped.
        tiny: its shape.
        label: what is in it.
        folder: where to.
    """
    base = folder / f"{tiny.name}.{label}"
    dk.save(net, base)
    spikes = input_spikes(10, 2)
    with torch.no_grad():
        found = tiny.run(net.eval(), spikes)
    bare = {BARE + k: v.contiguous() for k, v in net.state_dict().items() if not is_extra(k)}
    tensors = {"input": spikes, "spikes": found.spikes, "membranes": found.membranes}
    save_file({k: v.clone() for k, v in (bare | tensors).items()}, f"{base}.run.safetensors")


def stored_runs(folder: Path) -> list[Path]:
    """List the runs in a folder, without endings."""
    ending = ".run.safetensors"
    return sorted(path.with_name(path.name.removesuffix(ending)) for path in folder.rglob(f"*{ending}"))


def check_stored_run(path: Path) -> nn.Module:
    """Load a stored checkpoint into a fresh net, compare its run with the stored one, and return the net.

    Args:
        path: one of :func:`stored_runs`.

    Raises:
        AssertionError: the loaded net computes something else.
    """
    stored = load_file(f"{path}.run.safetensors")
    nets = {tiny.name: tiny for library in LIBRARIES + MORE_NETS for tiny in tiny_nets(library)}
    tiny = nets[path.name.partition(".")[0]]
    net = tiny.build(seed=1)
    net.load_state_dict({k.removeprefix(BARE): v for k, v in stored.items() if k.startswith(BARE)}, strict=True)
    dk.load(net, path)
    with torch.no_grad():
        found = tiny.run(net.eval(), stored["input"])
    assert_equal(found, Record(stored["spikes"], stored["membranes"]), VALUE_TOLERANCE, f"run of {path.name}")
    return net


def rewrite_checkpoint(path: Path, change: Callable[[dict[str, Any], dict[str, Tensor]], Any], form: int = 2) -> None:
    """Change a checkpoint as somebody with a plan would, with a digest that fits.

    Args:
        path: file name without ending, as for :func:`delaykit.save`, whose format it has.
        change: ``change(plan, tensors)`` changes the plan or the tensors in place.
        form: format to write, 1 (two files) or 2.
    """
    file = path.with_name(path.name + ".safetensors")
    meta, tensors = unpack(file.read_bytes(), str(file))
    assert meta is not None
    change(meta, tensors)
    own = {key: value.clone().contiguous() for key, value in tensors.items()}
    if form == 1:
        payload = save(own)
        former = meta | ({"format": 1} if meta.get("format") == 2 else {})
        former["sha256"] = hashlib.sha256(payload).hexdigest()
        path.with_name(path.name + ".json").write_text(json.dumps(former), encoding="utf-8")
    else:
        own[PLAN] = torch.frombuffer(bytearray(json.dumps(meta).encode()), dtype=torch.uint8)
        payload = save(own, {DIGEST: digest_of(own)})
    file.write_bytes(payload)
