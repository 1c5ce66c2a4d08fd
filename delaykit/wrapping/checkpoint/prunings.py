"""What prunings remember, in a checkpoint: an interrupted training goes on with the synapses that it had."""

from __future__ import annotations

from torch import Tensor, nn

from delaykit.errors import CheckpointError
from delaykit.interfaces import Pruning
from delaykit.synapse import MEMORY
from delaykit.wrapping.controls import wrapped_sites

MARK = MEMORY  # no state_dict key begins so


def is_memory(key: str) -> bool:
    """Tell whether a key of a state dict is what a pruning remembers, which is written by :func:`remembered`."""
    words = key.split(".")
    return MEMORY in words and "dk" in words[: words.index(MEMORY)]  # a cell's connections are named below its ``dk``


def remembered(net: nn.Module) -> dict[str, Tensor]:
    """Return what all prunings of a wrapped model remember, under keys ``#pruning/<number>/<name>/<site>``."""
    return {
        f"{MARK}/{number}/{name}/{site}": value.detach().contiguous().cpu()
        for (site, number), pruning in _prunings(net).items()
        for name, value in pruning.state().items()
    }


def split(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Tell the tensors of a checkpoint that belong to prunings from all others; returns prunings', others'."""
    mine = {key: value for key, value in tensors.items() if key.startswith(f"{MARK}/")}
    return mine, {key: value for key, value in tensors.items() if key not in mine}


def remind_(net: nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Give the prunings of a wrapped model back what :func:`remembered` found; one that had nothing starts anew.

    Raises:
        CheckpointError: a key or a tensor does not fit; then no pruning is changed.
    """
    prunings = _prunings(net)
    states: dict[tuple[str, str], dict[str, Tensor]] = {place: {} for place in prunings}
    for key, value in tensors.items():
        number, name, site = (*key.split("/", 3)[1:], "", "", "")[:3]
        place = (site, number)
        if place not in states:
            found, fix = f"a pruning's memory {key!r:.80}", "load into the model that it was saved from"
            raise CheckpointError(where, found, "the prunings that the model was wrapped with", fix)
        states[place][name] = value
    before = {place: pruning.state() for place, pruning in prunings.items()}
    try:
        for place, pruning in prunings.items():
            pruning.load_state_(states[place])
    except CheckpointError:
        for place, pruning in prunings.items():
            pruning.load_state_(before[place])
        raise


def _prunings(net: nn.Module) -> dict[tuple[str, str], Pruning]:
    sites = wrapped_sites(net)
    return {(site.name, str(k)): pruning for site in sites for k, pruning in enumerate(site.synapse.prunings)}
