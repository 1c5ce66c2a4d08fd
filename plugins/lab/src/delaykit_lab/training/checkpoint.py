"""The state of a run in one safetensors file: weights, optimizer, order, memory of pruning, a JSON header. No pickle.

torch's own generator is kept, too, for dropout and the like.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import delaykit as dk
from delaykit import CheckpointError
from delaykit.sealed import commit, read_file, seal, unseal
from delaykit_lab.training.facts import check_facts, facts_of

FORMAT, FORMER = "delaykit-lab-run-2", "delaykit-lab-run-1"  # the former had no digest


def save_run(
    path: Path,
    net: nn.Module,
    optimizer: torch.optim.Optimizer,
    order: torch.Generator,
    config: dict[str, Any],
    history: list[dict[str, Any]],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write the state of a run; an interruption leaves the earlier file whole.

    Args:
        path: file to write.
        net: its state dict is kept.
        optimizer: its tensors are kept; learning rates are not, they follow from the epoch.
        order: generator of the sample order.
        config: JSON values that must be equal when the run goes on.
        history: JSON records, one an epoch.
        more: further facts, JSON values that must be equal where an earlier file tells them, too; those of
            :func:`~delaykit_lab.training.facts.facts_of` are always kept.

    Raises:
        CheckpointError: the file cannot be written, or could not be resumed from, since net or optimizer keep
            something else than tensors and numbers; the earlier one is as it was.
    """
    parts = {f"net.{name}": value for name, value in net.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        parts |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    tensors, numbers = _apart(parts, str(path))
    tensors |= {f"pruning.{key}": value for key, value in pruning_states(net).items()}
    tensors |= {"order": order.get_state(), "torch_rng": torch.get_rng_state()}
    if torch.cuda.is_available():
        tensors |= {f"cuda_rng.{k}": state for k, state in enumerate(torch.cuda.get_rng_state_all())}
    header = {"format": FORMAT, "config": json.dumps(config, sort_keys=True), "history": json.dumps(history)}
    header |= {"facts": json.dumps(facts_of(net, optimizer) | dict(more or {}))}
    header |= {"numbers": json.dumps(numbers)} if numbers else {}
    commit(path, seal(tensors, header))


def _apart(parts: dict[str, Any], where: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tell tensors from plain numbers; refuse what is neither, for it would be missing from the file."""
    tensors = {name: value for name, value in parts.items() if isinstance(value, Tensor)}
    rest = {name: value for name, value in parts.items() if name not in tensors}
    for name, value in rest.items():
        if name.startswith("net.") or not (value is None or type(value) in (bool, int, float)):
            found = f"{name}, a {type(value).__name__}"
            fix = "use an optimizer such as Adam or SGD, and return tensors from get_extra_state"
            raise CheckpointError(where, found, "a state of tensors, and of numbers in the optimizer", fix)
    return tensors, rest


def load_run(
    path: Path, net: nn.Module, optimizer: torch.optim.Optimizer, order: torch.Generator, config: dict[str, Any],
    more: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Put a saved state back into ``net``, ``optimizer`` and ``order``.

    Returns:
        The history saved with it.

    Raises:
        CheckpointError: the file is damaged or foreign, or belongs to another configuration, model or optimizer; net,
            optimizer and order are then as they were.
    """
    header, tensors = _read(path)
    if header["config"] != json.dumps(config, sort_keys=True):
        found, expected = f"a run with {header['config']}", json.dumps(config, sort_keys=True)
        raise CheckpointError(str(path), found, expected, "use the same settings, or another output folder")
    check_facts(json.loads(header.get("facts", "{}")), facts_of(net, optimizer) | dict(more or {}), str(path))
    own = pruning_states(net), order.get_state(), torch.get_rng_state()
    before = copy.deepcopy((net.state_dict(), optimizer.state_dict(), *own))
    try:
        _put_back_(net, optimizer, order, tensors, json.loads(header.get("numbers", "{}")))
        history: list[dict[str, Any]] = json.loads(header["history"])
        return history
    except (RuntimeError, ValueError, KeyError, TypeError, CheckpointError) as problem:
        net.load_state_dict(before[0])
        optimizer.load_state_dict(before[1])
        load_pruning_(net, before[2])
        order.set_state(before[3])
        torch.set_rng_state(before[4])
        found = f"a state that does not fit ({problem})"
        fix = "use another output folder"
        raise CheckpointError(str(path), found, "one of this model and optimizer", fix) from problem


def _put_back_(
    net: nn.Module, optimizer: torch.optim.Optimizer, order: torch.Generator, tensors: dict[str, Tensor],
    numbers: dict[str, Any],
) -> None:  # fmt: skip
    weights = {name.removeprefix("net."): value for name, value in tensors.items() if name.startswith("net.")}
    state: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *numbers.items()]:
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    net.load_state_dict(weights)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    order.set_state(tensors["order"])
    load_pruning_(net, {n.removeprefix("pruning."): v for n, v in tensors.items() if n.startswith("pruning.")})
    if "torch_rng" in tensors:
        torch.set_rng_state(tensors["torch_rng"])
    states = [tensors[name] for name in sorted(tensors) if name.startswith("cuda_rng.")]
    if states and len(states) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(states)


def saved_history(path: Path) -> list[dict[str, Any]]:
    """Read the records of a saved run alone.

    Raises:
        CheckpointError: the file is damaged or foreign.
    """
    history: list[dict[str, Any]] = json.loads(_read(path)[0]["history"])
    return history


def _prunings(net: nn.Module) -> dict[str, Any]:
    """Name the prunings of a net: ``site.number``; none where nothing is wrapped."""
    from delaykit_lab.methods import is_wrapped

    if not is_wrapped(net):
        return {}
    sites = dk.wrapped_sites(net)
    return {f"{site.name}.{k}": pruning for site in sites for k, pruning in enumerate(site.synapse.prunings)}


def pruning_states(net: nn.Module) -> dict[str, Tensor]:
    """Return what prunings remember, such as which synapses there are: it is no part of a state dict."""
    return {f"{name}.{key}": value for name, p in _prunings(net).items() for key, value in p.state().items()}


def load_pruning_(net: nn.Module, states: dict[str, Tensor]) -> None:
    """Give prunings back what :func:`pruning_states` returned."""
    for name, pruning in _prunings(net).items():
        found = {key.removeprefix(f"{name}."): value for key, value in states.items() if key.startswith(f"{name}.")}
        pruning.load_state_(found)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        header, tensors = unseal(read_file(path), str(path), former=FORMER)
    except OSError as problem:
        fix = "name another file, or give it back its permissions"
        raise CheckpointError(str(path), f"a file that cannot be read ({problem})", "a saved run", fix) from problem
    if header.get("format") not in (FORMAT, FORMER) or not {"config", "history"} <= set(header):
        raise CheckpointError(str(path), f"format {header.get('format')!r}", repr(FORMAT), "use another output folder")
    return header, tensors
