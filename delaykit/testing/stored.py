"""Checkpoints that an earlier version wrote: they load, and the loaded net computes what that version's did.

One run is three files, ``<net>.<label>.json`` and ``.safetensors`` from :func:`delaykit.save`, and
``<net>.<label>.run.safetensors`` with the bare weights, an input and what came out.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

import delaykit as dk
from delaykit.testing.kit import VALUE_TOLERANCE, assert_equal
from delaykit.testing.nets import LIBRARIES, MORE_NETS, Record, TinyNet, input_spikes, tiny_nets

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
    bare = {BARE + k: v.contiguous() for k, v in net.state_dict().items() if "dk" not in k.split(".")}
    tensors = {"input": spikes, "spikes": found.spikes, "membranes": found.membranes}
    save_file({k: v.clone() for k, v in (bare | tensors).items()}, f"{base}.run.safetensors")


def stored_runs(folder: Path) -> list[Path]:
    """List the runs in a folder, without endings."""
    return sorted(path.with_suffix("") for path in folder.glob("*.json"))


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
