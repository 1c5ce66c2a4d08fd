"""What modules keep in a state dict beside parameters and buffers: extra states, and what is no tensor."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from delaykit.errors import CheckpointError
from delaykit.synapse import MEMORY
from delaykit.wrapping.checkpoint.container import PLAN

KEY = "_extra_state"  # torch's word


def extra_states(model: nn.Module) -> dict[str, nn.Module]:
    """Name the modules that have an extra state, by their keys in the model's state dict."""
    named = model.named_modules(remove_duplicate=False)
    none = nn.Module.get_extra_state
    return {f"{n}.{KEY}" if n else KEY: m for n, m in named if type(m).get_extra_state is not none}


def state_dict_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by their keys, the objects themselves."""
    apart = extra_states(model)
    state: Mapping[str, Any] = model.state_dict(keep_vars=True)
    return {key: value for key, value in state.items() if isinstance(value, Tensor) and key not in apart}


def check_tensors(state: Mapping[str, Any], where: str) -> None:
    """Refuse to write a state dict of which a part is no tensor, or has a name that a checkpoint keeps for itself.

    Raises:
        CheckpointError: it would be missing from the file; it names the module.
    """
    for key, value in state.items():
        if key == PLAN or key.startswith(f"{MEMORY}/"):
            found, fix = f"the name {key!r:.80}", "name it without #"
            raise CheckpointError(where, found, "no name that the file keeps for itself", fix)
        if not isinstance(value, Tensor):
            found = f"a {type(value).__name__} that {key.rpartition('.')[0] or 'the model'} keeps as {key}"
            fix = "return a tensor from get_extra_state, or save the model's own state apart, without with_model"
            raise CheckpointError(where, found, "tensors only: a file of them cannot hold it", fix)


@contextlib.contextmanager
def handed_over(model: nn.Module, given: Mapping[str, Tensor], where: str) -> Iterator[None]:
    """Give modules their extra states, and take them back where they, or the block, fail.

    Args:
        model: whose modules have them.
        given: the file's tensors.
        where: the file.

    Raises:
        CheckpointError: a module refused its state.
    """
    apart = {key: module for key, module in extra_states(model).items() if key in given}
    before: dict[str, Any] = {}
    try:
        for key, module in apart.items():
            before[key] = module.get_extra_state()
            try:
                module.set_extra_state(given[key].clone())
            except Exception as error:  # whatever a module of somebody else raises
                found = f"{key} that its module refuses ({type(error).__name__}: {error!s:.200})"
                fix = "load into the model that it was saved from"
                raise CheckpointError(where, found, "what its get_extra_state returned", fix) from error
        yield
    except BaseException:
        for key, value in before.items():
            apart[key].set_extra_state(value)
        raise
