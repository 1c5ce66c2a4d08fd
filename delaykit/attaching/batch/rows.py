"""Rows that ride along: what ``tree_map`` does to the rows of a state is done to a list of their numbers, too."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class Rows:
    """Stands for the rows of a batch in a state; not a tensor, but it takes what is done to one.

    ``v[[1, 0]]``, ``v[mask]``, ``v.flip(0)``, ``v * mask``, ``torch.where(...)`` and their like give the rows that came
    of it. The numbers begin at 1; 0 is a row that was set to zero.

    Args:
        ids: (batch, 1, ...), of the rank of the state.
        touched: whether anything was done to them: else it was done to tensors alone.
        cut: whether they were detached, which tells also of a state without a graph to lose.
    """

    def __init__(self, ids: Tensor, touched: bool = False, cut: bool = False) -> None:
        self.ids, self.touched, self.cut = ids, touched, cut

    def detach(self) -> Rows:
        """Know that the graph was cut here."""
        return Rows(self.ids, True, True)

    def detach_(self) -> Rows:
        """Know that the graph was cut here."""
        return self.detach()

    @property
    def data(self) -> Rows:
        """Know that the graph was cut here."""
        return self.detach()

    def met(self, others: list[Rows]) -> Rows:
        """Return what stands for the rows of all of these, as in ``torch.cat``."""
        return self

    def made(self, ids: Any) -> Any:
        """Wrap the result of an operation."""
        return Rows(ids, True, self.cut) if isinstance(ids, Tensor) else ids

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = [a for a in (*args, *(kwargs or {}).values()) if isinstance(a, Rows)]
        found += [a for some in args if isinstance(some, (list, tuple)) for a in some if isinstance(a, Rows)]
        if getattr(func, "__name__", "") in ("detach", "detach_"):
            return found[0].detach()
        output = func(*map(_ids, args), **{k: _ids(v) for k, v in (kwargs or {}).items()})
        return found[0].met(found[1:]).made(output)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name == "ids":
            raise AttributeError(name)
        value = getattr(self.ids, name)
        if not callable(value):
            return self.made(value) if isinstance(value, Tensor) else value
        return lambda *args, **kwargs: self.made(value(*map(_ids, args), **{k: _ids(v) for k, v in kwargs.items()}))

    def __getitem__(self, key: Any) -> Any:
        return self.made(self.ids[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        self.ids[key] = _ids(value)

    def __len__(self) -> int:
        return len(self.ids)


def _operator(name: str) -> Any:
    def run(self: Rows, *args: Any) -> Any:
        return self.made(getattr(self.ids, name)(*map(_ids, args)))

    return run


for _name in "add radd sub rsub mul rmul truediv neg pow eq ne lt gt le ge".split():
    setattr(Rows, f"__{_name}__", _operator(f"__{_name}__"))
Rows.__hash__ = object.__hash__  # type: ignore[method-assign]


def _ids(value: Any) -> Any:
    if isinstance(value, (list, tuple)) and any(isinstance(v, Rows) for v in value):
        return type(value)(map(_ids, value))
    return value.ids if isinstance(value, Rows) else value


def number(like: Tensor) -> Tensor:
    """Number the rows of a tensor ``(batch, ...)``, 1 to batch, in its rank."""
    dtype = like.dtype if like.dtype in (torch.float32, torch.float64) else torch.float32
    ids = torch.arange(1, len(like) + 1, dtype=dtype, device=like.device)
    return ids.reshape(-1, *[1] * (like.dim() - 1))


def moved(ids: Tensor, batch: int) -> list[int | None] | None | str:
    """Read the numbers: where each row was before, None for one at zero; "edit" or None where that cannot be read.

    Args:
        ids: what became of the numbers of ``batch`` rows.
        batch: number of rows before.

    Returns:
        Rows as a list; ``"edit"`` where values were changed but every row is in its place; None where nobody can tell.
    """
    if ids.dim() == 0:
        return None
    flat = ids.reshape(len(ids), -1)
    if not flat.shape[1] or bool((flat != flat[:, :1]).any()):
        return None
    numbers = flat[:, 0].tolist()
    whole = [int(n) for n in numbers if n == int(n) and 0 <= n <= batch]
    named = [n for n in whole if n]
    if len(whole) == len(numbers) and len(set(named)) == len(named):
        return [n - 1 if n else None for n in whole]
    in_order = len(numbers) == batch and all(a < b for a, b in zip(numbers, numbers[1:], strict=False))
    return "edit" if in_order else None
