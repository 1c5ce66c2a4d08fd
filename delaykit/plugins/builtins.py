"""What ships with the core, registered through the same hook as any plugin."""

from __future__ import annotations

from collections.abc import Iterator

from delaykit.plugins.hookspecs import hookimpl
from delaykit.plugins.records import API_VERSION, Component, Operator

DELAYKIT_API = API_VERSION

_FILES = {"reference": "reference", "torch": "torch", "cpu": "numba", "gpu": "triton"}
_EVERYWHERE = ("reference", "torch", "cpu", "gpu")
_WITHOUT_TRITON = ("reference", "torch", "cpu")
# room in delaykit.functional, its operators, each a function of that name in every backend's file, and its backends
_ROOMS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("delay_line", ("tap_filter", "tap_correlation", "tap_gradients"), _EVERYWHERE),
    ("delayed_linear", ("synapse_filter", "synapse_correlation", "event_product", "event_gradient"), _EVERYWHERE),
    ("running_sum", ("running_sum",), _EVERYWHERE),
    ("filtered_linear", ("decay_filter", "decay_filter_gradient"), _EVERYWHERE),
    ("decay_tape", ("decay_step", "decay_step_back"), _EVERYWHERE),
    ("step_tape", ("tape_lines", "tape_series", "tape_synapses", "tape_correlation"), _EVERYWHERE),
    ("step_tape", ("tape_store",), _WITHOUT_TRITON),  # one kernel of torch's
    (
        "step_tape",
        ("tape_polynomials", "tape_tents", "tape_pending", "tape_heights", "tape_deliver", "tape_overlap"),
        _WITHOUT_TRITON,
    ),
    ("leaky_step", ("leaky_step",), _WITHOUT_TRITON),
    ("recurrence", ("recurrence",), _EVERYWHERE),
)


@hookimpl
def delaykit_components() -> Iterator[Component]:
    """Yield the free delay, the neurons' time constants, and the adapters for snnTorch, Norse and torch."""
    yield Component(
        "delay",
        "free",
        "delaykit.delays:FreeDelay",
        "one delay per layer, pre neuron, post neuron or synapse; fixed or learned",
        "Ilyass Hammouamri, Ismail Khalfaoui-Hassani and Timothée Masquelier 2024, Learning Delays in Spiking Neural "
        "Networks using Dilated Convolutions with Learnable Spacings, ICLR, arXiv 2306.17670",
    )
    yield Component(
        "heterogeneity",
        "time_constants",
        "delaykit.time_constants:TimeConstants",
        "the neurons' own membrane and synaptic decays, one a layer, channel or neuron; learned or fixed",
        "Nicolas Perez-Nieves, Vincent C. H. Leung, Pier Luigi Dragotti and Dan F. M. Goodman 2021, Neural "
        "heterogeneity promotes robust learning, Nature Communications 12, 5791",
    )
    yield Component(
        "adapter",
        "snntorch",
        "delaykit.adapters.snntorch:SnnTorchAdapter",
        "snnTorch neurons and layers",
        "Jason K. Eshraghian et al. 2023, Training spiking neural networks using lessons from deep learning, "
        "Proceedings of the IEEE 111, 1016-1054, arXiv 2109.12894",
    )
    yield Component(
        "adapter",
        "norse",
        "delaykit.adapters.norse:NorseAdapter",
        "Norse cells and SequentialState",
        "Christian Pehle and Jens E. Pedersen 2021, Norse - a deep learning library for spiking neural networks, "
        "doi 10.5281/zenodo.4422025",
    )
    yield Component("adapter", "torch", "delaykit.adapters.plain:TorchAdapter", "plain torch modules, own neurons")


@hookimpl
def delaykit_operators() -> Iterator[Operator]:
    """Yield the core's operators: the inner sums of ``delaykit.functional``."""
    for room, names, backends in _ROOMS:
        for name in names:
            for backend in backends:
                yield Operator(name, backend, f"delaykit.functional.{room}.{_FILES[backend]}:{name}")
