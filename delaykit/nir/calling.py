"""How the example calls the model: what it gives, what it gets, what becomes of the input before the first layer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from delaykit.attaching.batch.tensors import tensors_in
from delaykit.attaching.retyping import original_class
from delaykit.errors import ConfigError
from delaykit.planning.modules_between import DROPOUTS
from delaykit.planning.trace import spied

DROPOUT = nn.modules.dropout._DropoutNd
PASSING = (nn.Identity, nn.Unflatten, nn.Sequential, DROPOUT)  # in eval mode they leave every number as it is


class Calls(TorchFunctionMode):
    """Keeps what each call of the model, and an example that is called, was given and returned.

    Args:
        net: the model.
        example: a batch, a tuple of arguments, or a callable.
        watched: connections, neurons and reshaping layers, which are watched elsewhere.
    """

    def __init__(self, net: nn.Module, example: Any, watched: Sequence[nn.Module]) -> None:
        super().__init__()
        self.net, self.calls, self.whole = net, list[list[Tensor]](), list[Tensor]()
        self.given: list[list[Tensor]] = []
        self.before: dict[str, str] = {}  # modules called before the first layer that NIR cannot say, with their kinds
        self.drops = False
        within = {id(part) for module in watched for part in module.modules()}
        self.others = {p: m for p, m in net.named_modules() if id(m) not in within and _is_alone(m)}
        self.trained = [p for p, m in net.named_modules() if isinstance(m, DROPOUT) and m.training and m.p > 0]
        self.trains = net.training or bool(self.trained)
        runs = callable(example) and not isinstance(example, Tensor)
        self.example = (lambda: self.whole.extend(_copies(example()))) if runs else example

    @contextlib.contextmanager
    def watching(self, begun: Callable[[], bool]) -> Iterator[None]:
        """Watch the calls of a run; ``begun`` tells whether the first layer was called."""

        def passed(path: str) -> Callable[..., None]:
            def hook(module: nn.Module, *_: Any) -> None:
                if not begun():
                    self.before.setdefault(path, original_class(module).__name__)

            return hook

        hooks = [module.register_forward_hook(passed(path)) for path, module in self.others.items()]
        try:
            with spied(self.net, self._root), self:
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def _root(self, base: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.given.append(_copies((args, kwargs)))  # copies: the model may change its input in place
        output = base(*args, **kwargs)
        self.calls.append(_copies(output))
        return output

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in DROPOUTS and func is getattr(nn.functional, name, None):
            self.drops |= bool((args[1] if len(args) > 1 else kwargs.get("p", 0.5)) > 0)
        return func(*args, **kwargs)

    def returned(self) -> list[Tensor]:
        """Return the tensors that were returned, and those of one call a step stacked."""
        stacked = [torch.stack(v) for v in zip(*self.calls, strict=False) if len({x.shape for x in v}) == 1]
        return [*self.whole, *stacked, *(self.calls[0] if len(self.calls) == 1 else ())]

    def check_modes(self) -> None:
        """Raise where dropout is in training, as the graph would hold the model in eval mode.

        Raises:
            ConfigError: a dropout that is switched on.
        """
        if self.drops and self.trains:
            where = self.trained[0] if self.trained else "model"
            found = "a dropout that is in training mode: it draws at random what no node of NIR does"
            raise ConfigError(where, found, "a model in eval mode", "call net.eval() before the export")

    def check_input(self, name: str, inputs: Tensor) -> None:
        """Raise unless the first layer was given what the model was called with, number by number.

        Args:
            name: of the first layer.
            inputs: what it was given, ``(time, batch, *features)``.

        Raises:
            ConfigError: the model does something to its input first. Where the model itself was never called, nothing
                is known of its input.
        """
        fix = "call it outside of the model, on the data, and pass what it returns: the graph begins at the first layer"
        if self.before:
            between = ", ".join(f"{path} ({kind})" for path, kind in self.before.items())
            found = f"{between} between the model's input and {name}, its first layer"
            expected = "nothing, or nn.Flatten and nn.AvgPool2d, which NIR has nodes for"
            raise ConfigError(next(iter(self.before)), found, expected, fix)
        if not self.given or any(_same(value, inputs) for value in _sequences(self.given, len(inputs))):
            return
        found = "input that is not what the model was called with: scaled, masked, flipped, reversed, drawn or the like"
        if not any(self.given):
            found = "input that the model makes itself: it is called with no tensor"
        expected = "the model's input as it is, or its steps in order: NIR begins with it"
        fix = "move what the model does to its input out of the model, to the data"
        raise ConfigError(f"{name}, the first layer", found, expected, fix)


def _is_alone(module: nn.Module) -> bool:
    """Tell whether it is a layer of torch's that changes numbers and holds no other."""
    own = original_class(module).__module__.startswith("torch.nn.modules")
    return own and not isinstance(module, PASSING) and next(module.children(), None) is None


def _copies(values: Any) -> list[Tensor]:
    return [tensor.detach().clone() for tensor in tensors_in(values)]


def _sequences(given: list[list[Tensor]], steps: int) -> Iterator[Tensor]:
    """Yield the arguments of all calls as sequences, time first: a call a step, the whole, pieces, or one for all."""
    for values in zip(*given, strict=False):
        first = values[0]
        if len(values) == steps and len({x.shape for x in values}) == 1:
            yield torch.stack(values)
        if len(values) == 1:
            yield first.expand(steps, *first.shape)  # the same current at every step
        for dim in range(first.ndim):
            rest = {(x.ndim, *x.shape[:dim], *x.shape[dim + 1 :]) for x in values if x.ndim > dim}
            if len(rest) == 1 and sum(x.shape[dim] for x in values if x.ndim > dim) == steps:
                yield torch.cat([x for x in values if x.ndim > dim], dim).movedim(dim, 0)


def _same(value: Tensor, inputs: Tensor) -> bool:
    """Tell whether both hold the same numbers in the same order; features may be reshaped."""
    if value.numel() != inputs.numel() or value.is_complex():
        return False
    return torch.equal(value.to(inputs.device, torch.double).reshape(inputs.shape), inputs.double())
