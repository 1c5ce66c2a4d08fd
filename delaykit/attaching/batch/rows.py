"""Rows that ride along: what ``tree_map`` does to the rows of a state is done to a list of their numbers, too."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor


class Run(Protocol):
    """Whose rows they are."""

    def under_way(self) -> bool:
        """Tell whether a later step may hear of an input."""


class Rows:
    """Stands for the rows of a batch in a state; not a tensor, but it takes what is done to one.

    ``v[[1, 0]]``, ``v[mask]``, ``v.flip(0)``, ``v * mask``, ``torch.where(...)`` and their like give the rows that came
    of it. The numbers begin at 1; 0 is a row that was set to zero.

    Args:
        ids: (batch, 1, ...), of the rank of the state.
        touched: whether anything was done to them: else it was done to tensors alone.
        cut: whether they were detached, which tells also of a state without a graph to lose.
        run: what the rows are of, which knows whether spikes are under way.

    Attributes:
        joined: whether rows of another run are among them, and spikes were under way in one of them.
        unsure: whether tensors were replaced without them, and it cannot be told whether those were detached.
    """

    joined = unsure = False

    def __init__(self, ids: Tensor, touched: bool = False, cut: bool = False, run: Run | None = None) -> None:
        self.ids, self.touched, self.cut, self.run = ids, touched, cut, run

    def detach(self) -> Rows:
        """Know that the graph was cut here."""
        out = self._with(self.ids)
        out.cut = True
        return out

    def detach_(self) -> Rows:
        """Know that the graph was cut here."""
        return self.detach()

    @property
    def data(self) -> Rows:
        """Know that the graph was cut here."""
        return self.detach()

    def met(self, others: list[Rows]) -> Rows:
        """Return what stands for the rows of all of these, as in ``torch.cat``."""
        runs = [self.run, *(other.run for other in others if other.run is not self.run)]
        out = self if len(runs) < 2 else self._with(self.ids)
        out.joined = self.joined or (len(runs) > 1 and any(run is not None and run.under_way() for run in runs))
        return out

    def made(self, ids: Any) -> Any:
        """Wrap the result of an operation, each part of it where there are several (``v.chunk(2)``)."""
        if isinstance(ids, Tensor):
            return self._with(ids)
        return type(ids)(map(self.made, ids)) if type(ids) in (tuple, list) else ids

    def _with(self, ids: Tensor) -> Rows:
        out = Rows(ids, True, self.cut, self.run)
        out.joined, out.unsure = self.joined, self.unsure
        return out

    def replaced(self, cut: bool | None) -> Rows:
        """Know what was done to tensors without them: those were detached, or not; None where nobody can tell.

        Args:
            cut: which of these.
        """
        out = self._with(self.ids)
        out.touched, out.cut, out.unsure = self.touched, self.cut or bool(cut), self.unsure or cut is None
        return out

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


class LineRows(Rows):
    """The state of a connection, which takes part in ``tree_map`` as one of its rows do.

    Args:
        shape: of what its rows are, without time: ``(batch, ...)``, or one dimension without a batch.
        dtype: of the numbers.
        device: of the numbers.
        alone: whether there is no batch, so that all of it is one row.
        line: what remembers its past: two states of the same line are of one run.

    Attributes:
        batch: number of rows before anything was done to them.
        joined: whether it is of several runs that had spikes under way.
        owner: the connection: no other one may go on from here.
        drives: a container's own: the place and the state of the neuron behind it.
        bare: whether its sequence went on without delays, while spikes were under way.
        touched: whether anything was done to it, be it that its rows stayed where they were.
    """

    owner: Any = None
    drives: Any = None
    bare = touched = False

    def __init__(self, shape: Sequence[int], dtype: torch.dtype, device: torch.device, alone: bool, line: Any) -> None:
        self.batch, self.run, self.alone = 1 if alone else shape[0], line, alone
        self._kind = self.batch, len(shape), dtype, device  # made at every step: no tensor is kept
        self._ids: Tensor | None = None

    @abstractmethod
    def under_way(self) -> bool:
        """Tell whether a later step may hear of an input."""

    @property
    def ids(self) -> Tensor:  # type: ignore[override]
        """The numbers of the rows, made when somebody asks."""
        if self._ids is None:
            self._ids = self._numbered()
        return self._ids

    def _numbered(self) -> Tensor:
        rows, rank, dtype, device = self._kind
        return number(torch.empty(rows, *[1] * (rank - 1), dtype=dtype, device=device))

    @property
    def changed(self) -> bool:
        """Whether anything was done to the rows, and not only asked; without a batch there are none."""
        return self._kind[1] > 1 and self._ids is not None and not torch.equal(self._ids, self._numbered())

    def went(self) -> list[int | None] | None:
        """Read the numbers: where each row was before, None for one at zero; None where nobody can tell."""
        if self.alone and len(self.ids) != 1:  # something was done to its channels
            return None
        rows = moved(self.ids, self.batch)
        return list(range(self.batch)) if isinstance(rows, str) else rows

    def met(self, others: list[Rows]) -> Rows:
        """Know that lines were joined which cannot be, if something is in them."""
        runs = {id(one.run): one for one in (self, *others) if isinstance(one, LineRows)}
        if len(runs) < 2:
            return self
        return self.twin(joined=any(one.joined or one.under_way() for one in runs.values()))

    def _with(self, ids: Tensor) -> Rows:
        return self.twin(_ids=ids, touched=True, batch=self._kind[0])

    def moved_again(self, rows: list[int | None]) -> Any:
        """Return what stands for rows of which row k was ``rows[k]`` of these, None for one at zero."""
        return self._with(selected(self.ids, rows))

    def twin(self, **changes: Any) -> Any:
        """Return a copy with other attributes; copy.copy would ask for what a pickle of it is."""
        out = object.__new__(type(self))
        out.__dict__ |= self.__dict__ | changes
        return out


def selected(tensor: Tensor, rows: Sequence[int | None], along: int = 0) -> Tensor:
    """Return a tensor whose row k was ``rows[k]``, zeros for None.

    Args:
        tensor: whose rows they are.
        rows: which of them, each any number of times.
        along: the dimension of the rows.

    Example:
        >>> selected(torch.tensor([1, 2]), [1, None, 1]).tolist()
        [2, 0, 2]
    """
    places = [place for place, row in enumerate(rows) if row is not None]
    sources = [row for row in rows if row is not None]
    shape = [len(rows) if dim == along else size for dim, size in enumerate(tensor.shape)]
    there, here = (torch.tensor(each, dtype=torch.long, device=tensor.device) for each in (places, sources))
    return tensor.new_zeros(shape).index_copy(along, there, tensor.index_select(along, here))


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
    flat = ids.flatten(1) if ids.dim() > 1 else ids.unsqueeze(1)
    if not flat.shape[1] or bool((flat != flat[:, :1]).any()):
        return None
    numbers = flat[:, 0].tolist()
    whole = [int(n) for n in numbers if n == int(n) and 0 <= n <= batch]
    named = [n for n in whole if n]
    if len(whole) == len(numbers) and len(set(named)) == len(named):
        return [n - 1 if n else None for n in whole]
    in_order = len(numbers) == batch and all(a < b for a, b in zip(numbers, numbers[1:], strict=False))
    return "edit" if in_order else None
