"""A recurrent net in continuous time, from event to event, with the tangent of every parameter: the judge of the steps.

No steps and no rounding: LIF flows in closed form, AdEx through an adaptive integrator, thresholds are met by root
finding. Tangents T[x] = dx/dparameters at a fixed time are carried along; :func:`finite_differences` needs none of
them. ``printed`` puts a rule back as the paper prints it.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
from collections.abc import Callable

import numpy as np
from scipy.integrate import solve_ivp
from scipy.optimize import brentq


@dataclasses.dataclass(frozen=True)
class LIF:
    """Neurons ``v' = -v / tau_mem + i`` in closed form; the state is ``(neuron, 3)``: v, i and an unused a."""

    tau_syn: float = 2.0
    tau_mem: float = 10.0
    start = 0.0
    jump = 0.0

    def derivative(self, y: np.ndarray) -> np.ndarray:
        v, i, _ = y.T
        return np.stack([-v / self.tau_mem + i, -i / self.tau_syn, 0 * v], 1)

    def _matrix(self, s: float) -> np.ndarray:
        slow, fast = np.exp(-s / self.tau_mem), np.exp(-s / self.tau_syn)
        gain = (fast - slow) / (1 / self.tau_mem - 1 / self.tau_syn)
        return np.array([[slow, gain, 0.0], [0.0, fast, 0.0], [0.0, 0.0, 1.0]])

    def advance(
        self, y: np.ndarray, tangent: np.ndarray, until: float
    ) -> tuple[float, int | None, np.ndarray, np.ndarray]:
        """Flow for ``until``, or to the first crossing: (time, neuron that crosses, state, tangent)."""
        crossings = [(s, n) for n in range(len(y)) if (s := self._crossing(*y[n, :2], until)) is not None]
        time, neuron = min(crossings) if crossings else (until, None)
        matrix = self._matrix(time)
        return time, neuron, y @ matrix.T, np.einsum("xy,nyp->nxp", matrix, tangent)

    def _crossing(self, v: float, i: float, until: float) -> float | None:
        rate = 1 / self.tau_mem - 1 / self.tau_syn
        height = lambda s: self._matrix(s)[0, :2] @ (v, i) - 1  # noqa: E731
        if i <= 0 or until <= 0:
            return None
        ratio = -(self.tau_syn / self.tau_mem) * (v - i / rate) / (i / rate)  # the only summit, where v' = 0
        summit = min(until, np.log(ratio) / rate) if ratio > 0 else until
        if summit <= 0 or height(summit) < 0:
            return None
        return brentq(height, 0.0, summit, xtol=1e-15, rtol=1e-15)


@dataclasses.dataclass(frozen=True)
class AdEx:
    """Neurons ``v' = -v / tau_mem + Delta exp((v - 1/2) / Delta) + i - a``, ``a' = (-a + coupling v) / tau_adapt``."""

    tau_syn: float = 2.0
    tau_mem: float = 10.0
    tau_adapt: float = 60.0
    coupling: float = 0.3
    jump: float = 0.15
    sharpness: float = 0.1
    start: float = 0.05

    def derivative(self, y: np.ndarray) -> np.ndarray:
        v, i, a = y.T
        upstroke = self.sharpness * np.exp((np.minimum(v, 1.2) - 0.5) / self.sharpness)
        return np.stack(
            [-v / self.tau_mem + upstroke + i - a, -i / self.tau_syn, (self.coupling * v - a) / self.tau_adapt], 1
        )

    def _change(self, y: np.ndarray, tangent: np.ndarray) -> np.ndarray:
        steep = np.exp((np.minimum(y[:, :1], 1.2) - 0.5) / self.sharpness) - 1 / self.tau_mem
        v, i, a = tangent[:, 0], tangent[:, 1], tangent[:, 2]
        return np.stack([steep * v + i - a, -i / self.tau_syn, (self.coupling * v - a) / self.tau_adapt], 1)

    def advance(
        self, y: np.ndarray, tangent: np.ndarray, until: float
    ) -> tuple[float, int | None, np.ndarray, np.ndarray]:
        """Flow for ``until``, or to the first crossing: (time, neuron that crosses, state, tangent)."""
        if until <= 0:
            return 0.0, None, y, tangent
        size, parameters = len(y), tangent.shape[2]

        def both(_: float, z: np.ndarray) -> np.ndarray:
            state, change = z[: 3 * size].reshape(size, 3), z[3 * size :].reshape(size, 3, parameters)
            return np.concatenate([self.derivative(state).ravel(), self._change(state, change).ravel()])

        def threshold(n: int) -> Callable[[float, np.ndarray], float]:
            def event(_: float, z: np.ndarray) -> float:
                return z[3 * n] - 1

            event.terminal, event.direction = True, 1  # type: ignore[attr-defined]
            return event

        found = solve_ivp(
            both, (0, until), np.concatenate([y.ravel(), tangent.ravel()]), method="DOP853",
            events=[threshold(n) for n in range(size)], rtol=1e-11, atol=1e-12,
        )  # fmt: skip
        end = found.y[:, -1]
        fired = next((n for n in range(size) if len(found.t_events[n])), None)
        return found.t[-1], fired, end[: 3 * size].reshape(size, 3), end[3 * size :].reshape(size, 3, parameters)


@dataclasses.dataclass(frozen=True)
class Net:
    """Weights and delays, all ``(post, pre)``: of the input and recurrent; spikes of the input as (neuron, time)."""

    parameters: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    inputs: tuple[tuple[int, float], ...]
    until: float
    neuron: LIF | AdEx = LIF()

    def flat(self) -> np.ndarray:
        return np.concatenate([x.ravel() for x in self.parameters])

    def at(self, flat: np.ndarray) -> Net:
        ends = np.cumsum([x.size for x in self.parameters])[:-1]
        parts = [part.reshape(x.shape) for part, x in zip(np.split(flat, ends), self.parameters, strict=True)]
        return dataclasses.replace(self, parameters=tuple(parts))


@dataclasses.dataclass
class Result:
    """Spike times with their neurons, the last state, and the tangents of both, parameters last."""

    spikes: list[tuple[float, int]]
    state: np.ndarray
    time_tangent: np.ndarray
    state_tangent: np.ndarray


def run(net: Net, tangents: bool = True, printed: str = "") -> Result:
    """Simulate from event to event."""
    weight, delay, inner, lag = net.parameters
    size, neuron = len(weight), net.neuron
    names = iter(np.eye(net.flat().size) if tangents else np.zeros((net.flat().size, 0)))
    t_weight, t_delay, t_inner, t_lag = ({at: next(names) for at in np.ndindex(x.shape)} for x in net.parameters)
    unit = t_weight[0, 0]
    y, tangent = np.zeros((size, 3)), np.zeros((size, 3, unit.size))
    y[:, 2] = neuron.start
    count = itertools.count()
    queue: list = []
    for pre, time in net.inputs:
        for post in range(size):
            arrival = (time + delay[post, pre], next(count), post, weight[post, pre], t_weight[post, pre])
            heapq.heappush(queue, (*arrival, t_delay[post, pre]))
    now, spikes, times = 0.0, [], []
    while True:
        following = min(queue[0][0], net.until) if queue else net.until
        passed, fired, y, tangent = neuron.advance(y, tangent, following - now)
        now += passed
        if fired is not None:
            t_spike = _fire(neuron, y[fired], tangent[fired], printed)
            spikes.append((now, fired))
            times.append(t_spike)
            for post in range(size):
                if post != fired:
                    arrival = (now + lag[post, fired], next(count), post, inner[post, fired], t_inner[post, fired])
                    heapq.heappush(queue, (*arrival, t_spike + t_lag[post, fired]))
        elif queue and queue[0][0] <= net.until:
            _, _, post, w, t_w, t_arrival = heapq.heappop(queue)
            y[post, 1] += w
            tangent[post, 1] += t_w + (-1 if printed == "eq 27" else 1) * w / neuron.tau_syn * t_arrival
            tangent[post, 0] -= (-1 if printed == "eq 16" else 1) * w * t_arrival
        else:
            return Result(spikes, y, np.array(times).reshape(len(times), unit.size), tangent)


def _fire(neuron: LIF | AdEx, y: np.ndarray, tangent: np.ndarray, printed: str) -> np.ndarray:
    """Reset one neuron in place; returns the tangent of the spike's time."""
    before = neuron.derivative(y[np.newaxis])[0]
    t_spike = -tangent[0] / before[0]
    y[0] = 0.0
    y[2] += neuron.jump
    after = neuron.derivative(y[np.newaxis])[0]
    divisor = before[0]
    if printed == "eq 9":
        divisor = before[0] + 1 / neuron.tau_mem - neuron.tau_mem
    tangent[0] = after[0] / divisor * tangent[0]
    rate = neuron.jump / neuron.tau_adapt if printed == "eq 18" and isinstance(neuron, AdEx) else before[2] - after[2]
    tangent[2] += rate * t_spike
    return t_spike


def finite_differences(loss: Callable[[np.ndarray], float], at: np.ndarray, step: float = 1e-6) -> np.ndarray:
    """Differentiate by central differences, one parameter at a time."""
    out = np.zeros_like(at)
    for n in range(at.size):
        shift = np.zeros_like(at)
        shift[n] = step
        out[n] = (loss(at + shift) - loss(at - shift)) / (2 * step)
    return out
