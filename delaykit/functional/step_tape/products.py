"""The operators of a tape that fold the connection's own product in: before the delay, or after it.

With ``W`` the weight, an axonal delay is ``y[t] = W z[t] + b``, ``z`` the delayed input, and a dendritic one
``y[t] = u'[t] + b``, ``u'`` the delayed ``u = W x``. Their weight gradients are one product at the end of the pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from delaykit.functional.step_tape.filters import Filter
from delaykit.functional.step_tape.recording import Recording, StepRecording, empty_rows, spread
from delaykit.functional.step_tape.segment_operators import Gradients, SegmentOperator

AT_ONCE = 16  # steps whose delayed inputs are made together: few enough to stay in the cache


class ProductOperator(SegmentOperator):
    """A filter and a product in some order."""

    def __init__(
        self,
        filter: Filter,
        identity: bool,
        shape: torch.Size,
        dtype: torch.dtype,
        device: torch.device,
        weight: Tensor,
        bias: Tensor | None,
    ) -> None:
        super().__init__(filter, identity, shape, dtype, device, weight, bias)
        self.matrix = weight

    @property
    def parameters(self) -> tuple[Tensor | None, ...]:
        return (*self.filter.parameters, self.matrix, self.bias)


class AxonalOperator(ProductOperator):
    """Delay every presynaptic channel, then one product: ``y = F.linear(z, W, b)``."""

    recording = StepRecording
    _late: Tensor | None = None  # z, which nobody keeps: written anew at each step
    _late_turned: Tensor

    def forward(self, x: Tensor, recording: Recording, row: int, keep: int | None) -> Tensor:
        if self.identity:
            return F.linear(x, self.matrix, self.bias)
        if self._late is None:
            self._late = empty_rows((self.filter.inputs, self.batch, 1), self.dtype, self.device)
            self._late_turned = self._late.squeeze(2).t()
        self.filtered(recording.rows, row, self._late, self._sums)
        return F.linear(self._late_turned, self.matrix, self.bias)

    def gradients(self, recording: Recording, last: int) -> Gradients:
        return _AxonalGradients(self, recording, last)


class _AxonalGradients(Gradients[AxonalOperator]):
    def __init__(self, operator: AxonalOperator, recording: Recording, last: int) -> None:
        super().__init__(operator, recording, last)
        self.matrix = operator.matrix.detach()
        self.turned_matrix = self.matrix.t()
        shape = (last + 1, operator.batch, self.matrix.shape[0])
        self.currents = empty_rows(shape, operator.dtype, operator.device)
        self._current, self._row = self.currents.unbind(0), self.stream.rows.unbind(1)

    def push(self, row: int, grad: Tensor | None) -> None:
        if grad is None:
            self.currents[row].zero_()
            self.stream.push(row, None)
            return
        current = self._current[row].copy_(grad)
        if self.stream.sums is None:
            torch.mm(self.turned_matrix, current.t(), out=self._row[row])
        else:
            self.stream.push(row, current @ self.matrix)

    def input(self, row: int) -> Tensor:
        out = self.operator.empty(self.operator.filter.inputs)
        self.operator.filter.read_back(self.stream.rows, row, self.operator.turned(out))
        return out

    def finish(self, first: int) -> tuple[Tensor | None, ...]:
        weight, bias = self.operator.matrix, self.operator.bias
        currents = self.currents[first : self.last + 1].flatten(0, 1)
        grad_bias = currents.sum(0) if bias is not None and bias.requires_grad else None
        if self.stream.sums is not None:
            for row in self.stream.past(first):
                self.stream.push(row, None)
        grad_weight = self._weight_gradient(first) if weight.requires_grad else None
        return (*self.stream.parameters(self.stream.recording.rows, first), grad_weight, grad_bias)

    def _weight_gradient(self, first: int) -> Tensor:
        """Delay the recorded input once more, some steps at a time: cheaper than to have kept it."""
        filter = self.operator.filter
        if self.stream.sums is not None:
            return self.currents[first : self.last + 1].flatten(0, 1).t() @ self._delayed(first).t()
        total = torch.zeros_like(self.matrix, memory_format=torch.contiguous_format)
        late = self.currents.new_empty(filter.inputs * AT_ONCE * self.operator.batch)
        for start in range(first, self.last + 1, AT_ONCE):
            stop = min(start + AT_ONCE, self.last + 1)
            shape = (filter.inputs, stop - start, self.operator.batch)
            z = late[: shape[0] * shape[1] * shape[2]].view(shape)
            filter.read_all(self.stream.recording.rows, start, z)
            total.addmm_(self.currents[start:stop].flatten(0, 1).t(), z.flatten(1).t())
        return total

    def _delayed(self, first: int) -> Tensor:
        """Delay the recorded input once more by running sums, ``(pre, time * batch)``."""
        operator, recording, sums = self.operator, self.stream.recording, self.operator.new_sums()
        assert sums is not None
        shape = (operator.filter.inputs, self.last + 1 - first, operator.batch)
        z = torch.empty(*shape, dtype=operator.dtype, device=operator.device)
        for row in range(recording.pad, first):
            operator.filter.read(recording.rows, row, sums.incoming)
            sums.add(sums.incoming)
        for row in range(first, self.last + 1):
            operator.filtered(recording.rows, row, z[:, row - first].unsqueeze(-1), sums)
        return z.flatten(1)


class DendriticOperator(ProductOperator):
    """One product, then a delay of every postsynaptic channel, then the bias."""

    keeps_products = True

    def replay(self, recording: Recording, remains: Tensor | None = None) -> None:
        self.currents = StepRecording(self.filter.outputs, self.chunk, recording.pad, self.dtype, self.device)
        if recording.size > recording.pad:
            past = recording.rows[:, recording.pad : recording.size]
            self.currents.extend(_product(self.matrix, past) if remains is None else remains)
            super().replay(self.currents)

    def remains(self, recording: Recording, keep: int) -> Tensor:
        """Currents are made once, with the weight of their step: an earlier segment's go on as they are."""
        return self.currents.newest(keep)

    def forward(self, x: Tensor, recording: Recording, row: int, keep: int | None) -> Tensor:
        at = self.currents.reserve(keep)
        if self.identity:
            y = F.linear(x, self.matrix, self.bias)
            self.store(self.currents.rows, at, y if self.bias is None else y - self.bias)
            return y
        current = F.linear(x, self.matrix)
        self.store(self.currents.rows, at, current)
        y = self.empty(self.filter.outputs)
        self.filtered(self.currents.rows, at, self.turned(y), self._sums)
        return (y if self.bias is None else y.add_(self.bias)).to(current.dtype)

    def gradients(self, recording: Recording, last: int) -> Gradients:
        return _DendriticGradients(self, recording, last)


class _DendriticGradients(Gradients[DendriticOperator]):
    def __init__(self, operator: DendriticOperator, recording: Recording, last: int) -> None:
        super().__init__(operator, recording, last)
        self.matrix = operator.matrix.detach()
        shape = (operator.filter.outputs, spread(last + 1), operator.chunk)
        self.currents = empty_rows(shape, operator.dtype, operator.device)

    def skip_to(self, row: int) -> None:
        """Fill in steps that recorded no gradient: their products are constants, which no weight hears of."""
        before = self.oldest
        super().skip_to(row)
        if row + 1 < before:
            self.currents[:, row + 1 : before].zero_()

    def push(self, row: int, grad: Tensor | None) -> None:
        self.stream.push(row, grad)
        self.operator.filter.read_back(self.stream.rows, row, self.currents[:, row].unsqueeze(-1))

    def input(self, row: int) -> Tensor:
        return self.currents[:, row].t() @ self.matrix

    def finish(self, first: int) -> tuple[Tensor | None, ...]:
        weight, bias = self.operator.matrix, self.operator.bias
        grad_bias = self.stream.total(first).to(bias.dtype) if bias is not None and bias.requires_grad else None
        if self.stream.sums is not None:
            for low in self.stream.past(first):
                self.stream.push(low, None)
        grad_weight = None
        if weight.requires_grad:  # of this segment's products: what came before was made with a weight of its own
            rows = self.stream.recording.rows[:, first : self.last + 1].flatten(1)
            grad_weight = self.currents[:, first : self.last + 1].flatten(1) @ rows.t()
        return (*self.stream.parameters(self.operator.currents.rows, first), grad_weight, grad_bias)


def _product(matrix: Tensor, rows: Tensor) -> Tensor:
    """Multiply every row ``(channel, chunk)`` of ``(channel, time, chunk)``."""
    return (matrix @ rows.flatten(1)).view(matrix.shape[0], *rows.shape[1:])
