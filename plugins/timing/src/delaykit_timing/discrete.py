"""From a trained discrete layer to exact spike times and back: snnTorch's ``Synaptic``, Norse's ``LIFCell``.

A discrete layer is ``syn_n = alpha syn_{n-1} + W s_n``, ``mem_n = beta mem_{n-1} + gain syn_n``. With
``tau_synapse = -dt / ln alpha`` and ``tau_membrane = -dt / ln beta`` the same membrane in continuous time, for a spike
of step n at ``t = n dt``, passes at ``t = (n + 1) dt`` exactly through ``mem_n`` when

``w = gain W / kappa(dt)``, ``kappa(dt) = (alpha - beta) / (1 / tau_membrane - 1 / tau_synapse)``.

So both agree to rounding up to a neuron's first spike, which the discrete layer sees at the end of the step it falls
in: an exact time t belongs to step ``floor(t / dt)``. After it they differ by less than a step's worth, since the
discrete layer resets at the end of a step (snnTorch by default one step later still).
:func:`compare_spike_times` says by how much.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from delaykit import checks
from delaykit.errors import ConfigError, ShapeError
from delaykit_timing.dynamics import TimingDynamics, membrane_response
from delaykit_timing.events import from_raster, to_raster
from delaykit_timing.layer import MultiSpikeLIF


@checks.annotated
def to_events(linear: nn.Linear, neuron: nn.Module, *, dt: float, end: float) -> MultiSpikeLIF:
    """Make the event layer of a discrete connection and its neurons.

    Args:
        linear: the connection; a bias must be zero or None.
        neuron: snnTorch ``Synaptic`` (reset to zero) or Norse ``LIFCell`` (reset and leak to 0), with one time constant
            a layer.
        dt: length of a step in the unit of the times, > 0.
        end: end of the window, > 0.

    Returns:
        A float64 layer with the same dynamics between spikes.

    Raises:
        ConfigError: dynamics that the event layer does not have; it says which.

    Example:
        >>> import snntorch
        >>> neuron = snntorch.Synaptic(alpha=0.9, beta=0.8, reset_mechanism="zero")
        >>> layer = to_events(nn.Linear(3, 2, bias=False), neuron, dt=1.0, end=50.0)
        >>> f"{layer.dynamics.tau_synapse:.3f}, {layer.dynamics.tau_v:.3f}"
        '9.491, 4.481'
    """
    alpha, beta, gain, threshold = _constants(neuron)
    if linear.bias is not None and bool(linear.bias.detach().any()):
        raise ConfigError(
            "to_events", "a connection with a bias", "no bias: events carry no constant current", "bias=False"
        )
    post, pre = linear.weight.shape
    tau_synapse, tau_membrane = -dt / math.log(alpha), -dt / math.log(beta)
    layer = MultiSpikeLIF(
        pre, post, tau_synapse=tau_synapse, tau_membrane=tau_membrane, threshold=threshold, end=end
    ).double()
    with torch.no_grad():
        layer.weight.copy_(linear.weight.double() * (gain / _one_step(layer.dynamics, dt)))
    return layer


@checks.annotated
def to_discrete(layer: MultiSpikeLIF, *, dt: float, library: str = "snntorch") -> tuple[nn.Linear, nn.Module]:
    """Make a discrete connection and its neurons of an event layer; the inverse of :func:`to_events`.

    Args:
        layer: an event layer without delays and without a limit of spikes.
        dt: length of a step in the unit of the times, > 0; small beside both time constants.
        library: ``snntorch`` or ``norse``.

    Returns:
        A float64 ``nn.Linear`` without bias and the neuron.

    Raises:
        ConfigError: the layer has delays or a limit of spikes, or there is no such library.

    Example:
        >>> linear, neuron = to_discrete(MultiSpikeLIF(3, 2, tau_synapse=0.8), dt=0.01)
        >>> f"{float(neuron.alpha):.4f} {float(neuron.beta):.4f}"
        '0.9876 0.9753'
    """
    if library not in ("snntorch", "norse"):
        raise ConfigError("to_discrete", f"library {library!r}", "'snntorch' or 'norse'", "name one of the two")
    d = layer.dynamics
    if layer.delay is not None or d.max_spikes is not None:
        raise ConfigError("to_discrete", "delays or a limit of spikes", "neither", "wrap the discrete layer instead")
    alpha, beta = math.exp(-dt / d.tau_synapse), math.exp(-dt / d.tau_v)
    neuron = (_snntorch_neuron if library == "snntorch" else _norse_neuron)(alpha, beta, d.threshold)
    gain = _constants(neuron)[2]
    linear = nn.Linear(layer.pre, layer.post, bias=False, dtype=torch.float64)
    with torch.no_grad():
        linear.weight.copy_(layer.weight.double() * (_one_step(d, dt) / gain))
    return linear, neuron


@dataclasses.dataclass(frozen=True)
class SpikeTimeReport:
    """How the spikes of a discrete and an event layer differ; times in the unit of ``dt``.

    Args:
        dt: length of a step.
        discrete: number of spikes of the discrete layer.
        exact: number of spikes of the event layer.
        equal_counts: share of neurons (of all samples) that fire equally often in both.
        first: largest difference between the step of a neuron's first spike and that of its exact time, in steps.
        mean: mean difference, discrete minus exact, of each neuron's spikes in order, as many as it fires in both;
            a spike of step n counts at ``(n + 1) dt``, where the discrete layer sees it.
        largest: largest absolute difference of the same.
    """

    dt: float
    discrete: int
    exact: int
    equal_counts: float
    first: int
    mean: float
    largest: float

    def __str__(self) -> str:
        return (
            f"{self.discrete} discrete and {self.exact} exact spikes; {100 * self.equal_counts:.1f} % of neurons fire "
            f"equally often, apart by {self.mean:.3g} on average, {self.largest:.3g} at most (a step is {self.dt:g}); "
            f"first spikes {self.first} step(s) apart at most"
        )


@checks.annotated
@torch.no_grad()
def compare_spike_times(
    linear: nn.Linear, neuron: nn.Module, layer: MultiSpikeLIF, raster: Tensor, *, dt: float
) -> SpikeTimeReport:
    """Run the same input through a discrete and an event layer.

    Args:
        linear: the discrete connection.
        neuron: its neurons.
        layer: the event layer.
        raster: input spikes or counts, ``(time, sample, pre)``.
        dt: length of a step in the unit of the event layer's times.

    Returns:
        The differences.

    Raises:
        ShapeError: the window of the event layer ends before the raster does.

    Example:
        >>> layer = MultiSpikeLIF(1, 1, tau_synapse=8.0, end=20.0).double()
        >>> _ = layer.weight.data.fill_(1.0)
        >>> linear, neuron = to_discrete(layer, dt=0.5)
        >>> report = compare_spike_times(linear, neuron, layer, torch.ones(40, 1, 1), dt=0.5)
        >>> report.first
        0
    """
    if raster.ndim != 3 or raster.shape[2] != linear.in_features:
        expected, fix = f"(time, sample, {linear.in_features})", "give the raster that this connection hears"
        raise ShapeError("compare_spike_times", f"a raster of shape {tuple(raster.shape)}", expected, fix)
    _constants(neuron)  # tells any other neuron
    steps, batch, _ = raster.shape
    if layer.dynamics.end < steps * dt * (1 - 1e-9):
        found = f"a window that ends at {layer.dynamics.end:g}"
        raise ShapeError(
            "compare_spike_times", found, f"at least {steps} steps of {dt:g}", "make the layer with a later end"
        )
    discrete = _run(linear, neuron, raster)
    exact = layer(from_raster(raster, dt))
    counts, exact_counts = discrete.sum(0).long(), to_raster(exact, dt, steps).sum(0).long()
    equal = counts == exact_counts
    fires, steps_of = (counts > 0) & (exact_counts > 0), to_raster(exact, dt, steps)
    first = (discrete.argmax(0) - (steps_of > 0).double().argmax(0))[fires].abs()
    differences = []
    for sample, j in fires.nonzero().tolist():
        seen = (discrete[:, sample, j].nonzero().squeeze(1).double() + 1) * dt
        times = exact.of_neuron(sample, j)
        both = min(len(seen), len(times))
        differences.append(seen[:both] - times[:both])
    gap = torch.cat(differences) if differences else torch.zeros(1, dtype=torch.float64)
    return SpikeTimeReport(
        dt, int(counts.sum()), int(exact_counts.sum()), float(equal.double().mean()),
        int(first.max()) if first.numel() else 0, float(gap.mean()), float(gap.abs().max()),
    )  # fmt: skip


compare = compare_spike_times  # its former name


def _one_step(dynamics: TimingDynamics, dt: float) -> float:
    if not (dt > 0 and math.isfinite(dt)):
        raise ConfigError("discrete", f"dt={dt}", "a finite length > 0", "pass e.g. dt=1.0")
    return float(membrane_response(torch.tensor(dt, dtype=torch.float64), dynamics))


def _constants(neuron: Any) -> tuple[float, float, float, float]:
    """(alpha, beta, gain, threshold) of a neuron whose dynamics match."""
    library = type(neuron).__mro__[0].__module__.split(".")[0]
    if library == "snntorch" and type(neuron).__name__ == "Synaptic":
        if neuron.reset_mechanism != "zero":
            found = f"snnTorch Synaptic with reset {neuron.reset_mechanism!r}"
            raise ConfigError("to_events", found, "reset_mechanism='zero'", "train it so, or set it")
        return _scalar("alpha", neuron.alpha), _scalar("beta", neuron.beta), 1.0, _scalar("threshold", neuron.threshold)
    if library == "norse" and type(neuron).__name__ in ("LIFCell", "LIF"):
        p = neuron.p
        if bool(torch.as_tensor(p.v_leak).any()) or bool(torch.as_tensor(p.v_reset).any()):
            raise ConfigError("to_events", "Norse with a leak or reset potential", "both 0", "set v_leak and v_reset")
        gain = neuron.dt * _scalar("tau_mem_inv", p.tau_mem_inv)
        return 1 - neuron.dt * _scalar("tau_syn_inv", p.tau_syn_inv), 1 - gain, gain, _scalar("v_th", p.v_th)
    found = f"a {type(neuron).__module__.split('.')[0]} {type(neuron).__name__}"
    fix = "pass a layer of one of these"
    raise ConfigError("to_events", found, "snnTorch Synaptic or Norse LIFCell: neurons with a synaptic current", fix)


def _scalar(name: str, value: Any) -> float:
    values = torch.as_tensor(value, dtype=torch.float64).detach()
    if values.numel() > 1 and bool((values != values.flatten()[0]).any()):
        raise ConfigError("to_events", f"{name} of several values", "one value a layer", "use one a layer")
    number = float(values.flatten()[0])
    if name in ("alpha", "beta") and not 0 < number < 1:
        fix = "correct the neuron's time constants"
        raise ConfigError("to_events", f"{name} = {number:g}", "a decay between 0 and 1", fix)
    return number


def _snntorch_neuron(alpha: float, beta: float, threshold: float) -> nn.Module:
    import snntorch

    constants = {"alpha": torch.tensor(alpha, dtype=torch.float64), "beta": torch.tensor(beta, dtype=torch.float64)}
    return snntorch.Synaptic(**constants, threshold=threshold, reset_mechanism="zero", reset_delay=False)


def _norse_neuron(alpha: float, beta: float, threshold: float) -> nn.Module:
    from norse.torch import LIFCell, LIFParameters

    rates = {"tau_syn_inv": (1 - alpha) / 0.001, "tau_mem_inv": (1 - beta) / 0.001}
    values = {name: torch.tensor(value, dtype=torch.float64) for name, value in rates.items()}
    return LIFCell(LIFParameters(**values, v_th=torch.tensor(threshold, dtype=torch.float64)), dt=0.001)


def _run(linear: nn.Linear, neuron: Any, raster: Tensor) -> Tensor:
    """Step the discrete layer; its spikes, ``(time, sample, post)``."""
    currents = linear(raster.to(linear.weight.dtype))
    shape = currents.shape[1:]
    snntorch = type(neuron).__module__.split(".")[0] == "snntorch"
    syn, mem, state, spikes = currents.new_zeros(shape), currents.new_zeros(shape), None, []
    for current in currents:
        if snntorch:
            spike, syn, mem = neuron(current, syn, mem)
        else:
            spike, state = neuron(current, state)
        spikes.append(spike)
    return torch.stack(spikes)
