r"""A gaussian for every delay, all of one width: what a step loop can run without listing taps.

``h(tau - d) = exp(-(tau - d)^2 / (2 std^2))``, tau = 0 .. window - 1

For a fixed ``tau`` this is a smooth function of ``d``. Cut into cells of a step or less, it equals, within a cell, a
polynomial of low degree to the last digit of its dtype, of some five terms for float32, whatever the spread. A synapse
has its cell and its place there, and the coefficients of the gaussian in each cell are common to all synapses.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from delaykit.functional.taps import Taps
from delaykit.functional.tents import ListsTaps

EXACT = {torch.float32: 5e-8, torch.float64: 5e-15}  # of the gaussian's peak: what rounding leaves uncertain anyway
REACH = {torch.float32: 6.0, torch.float64: 9.0}  # std, beyond which it is smaller than that
CELLS, TERMS = (1, 2, 4), range(3, 15)
TAP, DENSE, WRITTEN = 1.3, 0.8, 1.5  # times of a tap, a step of a dense product, a row written, to that of a term
ROWS = 16  # whose responses are written out together


class Basis(NamedTuple):
    """Polynomials in cells of delays, each in y from -1 at the beginning of its cell to 1 at the end.

    Args:
        std: of the gaussian, in steps.
        cells: number of cells a step.
        terms: number of coefficients.
    """

    std: float
    cells: int
    terms: int

    def place(self, delays: Tensor) -> tuple[Tensor, Tensor]:
        """Find the cell of each delay, int64, and y there, float64."""
        at = delays.double() * self.cells
        cell = at.floor()
        return cell.long(), 2 * (at - cell) - 1

    def coefficients(self, cells: Tensor) -> Tensor:
        """Return ``(cell, terms)``: the polynomial that the gaussian is, so many cells after a delay's own.

        ``h((cell - (y + 1) / 2) / cells) = sum_m coefficients[cell, m] y^m``, through the nodes of Chebyshev
        """
        number = torch.arange(self.terms, dtype=torch.float64)
        angle = math.pi / self.terms * (number + 0.5)
        away = (cells.double().unsqueeze(1) - (angle.cos() + 1) / 2) / self.cells
        height = torch.exp(away**2 * (-0.5 / self.std**2))
        turned = torch.outer(angle, number).cos() * (2 / self.terms)
        turned[:, 0] /= 2
        return height @ turned @ _chebyshev(self.terms)

    def error(self) -> float:
        """Return the largest distance from the gaussian, looked for at a tenth of a cell."""
        cells = torch.arange(-math.ceil(3 * self.std) * self.cells, math.ceil(3 * self.std) * self.cells + 1)
        part = torch.linspace(0, 1, 11, dtype=torch.float64)
        powers = (2 * part - 1) ** torch.arange(self.terms).unsqueeze(1)
        wanted = torch.exp(((cells.double().unsqueeze(1) - part) / self.cells) ** 2 * (-0.5 / self.std**2))
        return float((self.coefficients(cells) @ powers - wanted).abs().max())


def _chebyshev(terms: int) -> Tensor:
    """Coefficients of the first Chebyshev polynomials, ``(polynomial, power)``, float64."""
    found = torch.eye(terms, dtype=torch.float64)
    for n in range(2, terms):
        found[n] = -found[n - 2]
        found[n, 1:] += 2 * found[n - 1, :-1]
    return found


class Bells(NamedTuple):
    """Hold delays, and the gaussian around each of them.

    Args:
        delays: ``(post, pre)``, steps, in [0, window].
        basis: polynomials that it is made of, and its width.
        window: the response lives in tau = 0 .. window - 1.
        kernel: the kernel whose response this is.
        epsilon: None where the response is that of above; else it is divided by its sum over the window plus this.

    Example:
        >>> from delaykit.arrivals import Gaussian
        >>> bells = Bells(torch.zeros(1, 1), Basis(1.0, 1, 8), 2, Gaussian(0.73, False, 2))
        >>> [round(x, 4) for x in bells.heights(bells.delays).flatten().tolist()]
        [1.0, 0.6065]
    """

    delays: Tensor
    basis: Basis
    window: int
    kernel: ListsTaps
    epsilon: float | None = None

    def taps(self) -> Taps:
        """List the same response as taps."""
        return self.kernel.taps(self.delays)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape of the delays."""
        return self.delays.shape[0], self.delays.shape[1]

    def memory(self) -> int:
        """Count the newest inputs a reader must remember."""
        return self.window

    def heights(self, delays: Tensor) -> Tensor:
        """Write ``h`` out for some rows of delays, before any division: ``(window, rows, pre)``."""
        tau = torch.arange(self.window, device=delays.device, dtype=delays.dtype).view(-1, 1, 1)
        return (tau - delays).square_().mul_(-0.5 / self.basis.std**2).exp_()

    def scale(self) -> Tensor | None:
        """Return what ``h`` is multiplied by, ``(post, pre)``, without a gradient, row by row; None: nothing."""
        if self.epsilon is None:
            return None
        rows = self.delays.detach().split(ROWS)
        return 1 / (torch.cat([self.heights(some).sum(0) for some in rows]) + self.epsilon)


def basis_for(std: float, window: int, delays: Tensor, weight: Tensor) -> Basis | None:
    """Return the basis for a connection, None where its taps, or a dense product over them, serve it better.

    Args:
        std: of the gaussian, in steps.
        window: steps of the response.
        delays: a delay for each synapse.
        weight: ``(post, pre)``.
    """
    if weight.dtype not in EXACT or delays.shape != weight.shape or not weight.numel():
        return None
    return _cheapest(std, weight.dtype, math.ceil(float(delays.detach().max())), window, min(weight.shape))


@functools.lru_cache(maxsize=256)
def _cheapest(std: float, dtype: torch.dtype, longest: int, window: int, synapses: int) -> Basis | None:
    """Choose by the work for a neuron: its synapses share that on its line."""
    reach = math.ceil(REACH[dtype] * std)
    best, least = None, synapses * min(DENSE * window, TAP * (2 * reach + 1))
    for cells in CELLS:
        rows = (longest + min(reach, window)) * cells  # of a line, that an input writes
        for terms in TERMS:
            cost = (terms + 1) * synapses + WRITTEN * terms * rows
            if cost >= least:
                break
            if Basis(std, cells, terms).error() <= EXACT[dtype]:
                best, least = Basis(std, cells, terms), cost
                break
    return best
