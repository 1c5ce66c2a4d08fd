"""Prune any weights of any model, wrapped or not: delays, decays and taps are weights, too."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from delaykit import ConfigError, PruningReport, Site, UnknownNameError, checks
from delaykit.synapse import Synapse
from delaykit_sparsify.config import DynamicSparsity
from delaykit_sparsify.pruning import DynamicPruning

READOUT = "readout"
CELL_WEIGHTS = ("input_weights", "recurrent_weights")


@checks.annotated
class Sparsifier:
    """Prune parameters of a model by their names, once an epoch: no wrapping needed.

    Connections that are wrapped with a :class:`DynamicSparsity` are pruned by ``dk.advance_``; this is for everything
    else: plain Linear and Conv layers, Norse cells, and parameters inside a synapse (delays, decays, motif taps).

    Args:
        net: any model.
        config: what to do with each weight.
        include: ``fnmatch`` patterns of parameter names; None: the weights of all Linear, Conv and Norse connections.
        exclude: patterns of names to leave out; the word ``readout`` is the last connection of the model.
        optimizer: the one that trains the model; needed by all ``regrow`` but ``free`` and by ``moments="reset"``.
            A copy of the model needs a ``Sparsifier`` of its own.
        generator: source of the seeds of random regrowth.

    Raises:
        UnknownNameError: a pattern of ``include`` or ``exclude`` names no parameter.
        ConfigError: nothing is left to prune, or the optimizer is missing.

    Example:
        >>> net = nn.Sequential(nn.Linear(4, 10), nn.ReLU(), nn.Linear(10, 2))
        >>> sparsifier = Sparsifier(net, DynamicSparsity(0.75))
        >>> sparsifier.step_(progress=1.0)["0.weight"].kept
        10
    """

    def __init__(
        self,
        net: nn.Module,
        config: DynamicSparsity,
        *,
        include: Sequence[str] | None = None,
        exclude: Sequence[str] = (READOUT,),
        optimizer: torch.optim.Optimizer | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        checks.is_model("Sparsifier", net)
        connections = connection_weights(net)
        named = dict(net.named_parameters())
        chosen = list(connections) if include is None else _matching(named, include, "include")
        left_out = set(_matching(named, [p for p in exclude if p != READOUT], "exclude"))
        if READOUT in exclude and connections and include is None:
            left_out.add(list(connections)[-1])
        if optimizer is None and (config.regrow != "free" or config.moments == "reset"):
            found = f"regrow={config.regrow!r}, moments={config.moments!r} without an optimizer"
            raise ConfigError("Sparsifier", found, "the one that trains the model", "pass optimizer=")
        self.net, self._names = net, [name for name in chosen if name not in left_out]
        if not self._names:
            found = "no weight to prune"
            raise ConfigError("Sparsifier", found, "at least one", "pass include=, or exclude=() for a single layer")
        self.prunings = {
            name: _pruning(config, name, weight, connections.get(name, False), generator)
            for name, weight in self.weights.items()
        }
        if optimizer is not None:
            for pruning in self.prunings.values():
                pruning.attached_(optimizer)
            optimizer.register_step_post_hook(self._project)

    @property
    def weights(self) -> dict[str, nn.Parameter]:
        """The parameters that are pruned, by name."""
        return {name: self.net.get_parameter(name) for name in self._names}

    @checks.annotated
    def step_(self, progress: float) -> dict[str, PruningReport]:
        """Prune all weights in place; call it at the end of each epoch, the last one included.

        Args:
            progress: fraction of the training that is done, in [0, 1].

        Returns:
            What was done, by parameter name.
        """
        if not 0 <= progress <= 1:
            raise ConfigError("Sparsifier.step_", f"progress={progress}", "a number in [0, 1]", "(epoch + 1) / epochs")
        weights = self.weights
        pairs = [(self.prunings[name], weight) for name, weight in weights.items()]
        with torch.no_grad():
            for pruning, _ in pairs:
                pruning.survey(pairs, progress)
            return {name: self.prunings[name].step_(weight, progress) for name, weight in weights.items()}

    def masks(self) -> dict[str, Tensor]:
        """Return which synapses are not zero now, by parameter name."""
        return {name: weight.detach() != 0 for name, weight in self.weights.items()}

    def _project(self, *_: Any) -> None:
        for name, weight in self.weights.items():
            self.prunings[name].project_(weight)


@checks.annotated
def connection_weights(net: nn.Module) -> dict[str, bool]:
    """Name the weights of all connections in the order of the model, and tell which are recurrent.

    Args:
        net: a model, wrapped or bare.

    Example:
        >>> connection_weights(nn.Sequential(nn.Conv1d(2, 3, 1), nn.Linear(3, 2)))
        {'0.weight': False, '1.weight': False}
    """
    inside = {id(p) for m in net.modules() if isinstance(m, Synapse) for p in m.parameters()}
    found = {}
    for path, module in net.named_modules():
        names = [n for n in CELL_WEIGHTS if isinstance(getattr(module, "_parameters", {}).get(n), nn.Parameter)]
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            names.append("weight")
        for name in names:
            if id(module._parameters[name]) not in inside:
                recurrent = name == "recurrent_weights" or path.split(".")[-1] == "recurrent" or ".dk." in f".{path}."
                found[f"{path}.{name}" if path else name] = recurrent
    return found


def _matching(named: dict[str, nn.Parameter], patterns: Sequence[str], what: str) -> list[str]:
    out: dict[str, None] = {}
    for pattern in patterns:
        hits = [name for name in named if fnmatch.fnmatchcase(name, pattern)]
        if not hits:
            expected = f"a parameter among {', '.join(named)}"
            raise UnknownNameError(f"Sparsifier {what}", f"{pattern!r}, which names none", expected, "correct the name")
        out.update(dict.fromkeys(hits))
    return list(out)


def _pruning(
    config: DynamicSparsity, name: str, weight: Tensor, recurrent: bool, generator: torch.Generator | None
) -> DynamicPruning:
    pre = weight.shape[1] if weight.ndim > 1 else 1
    pruning = config.build(Site(name, pre, weight.shape[0] if weight.ndim else 1, recurrent=recurrent), generator)
    pruning.bind_(None, None)
    return pruning
