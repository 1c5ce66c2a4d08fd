"""Torch's fast paths, which read the weights of a layer and never call it: a wrapped layer must be called."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle

from delaykit.attaching.retyping import Undo


def call_always_(net: nn.Module, path: str) -> list[Undo]:
    """Keep the modules around a connection off the paths that pass it by.

    In evaluation without gradients ``nn.TransformerEncoderLayer`` hands its weights to one kernel, but not where a hook
    is attached to it.

    Args:
        net: the model.
        path: of the connection in it.

    Returns:
        How to take it back.

    Example:
        >>> net = nn.Sequential(nn.TransformerEncoderLayer(4, 2, 8))
        >>> len(call_always_(net, "0.linear1")), len(call_always_(net, "0"))
        (1, 0)
    """
    steps = path.split(".")
    around = [net.get_submodule(".".join(steps[:k])) for k in range(len(steps))]
    return [
        Undo(RemovableHandle.remove, (module.register_forward_pre_hook(_pass),))
        for module in around
        if isinstance(module, nn.TransformerEncoderLayer)
    ]


def _pass(module: nn.Module, arguments: Any) -> None:
    """Change nothing."""
