r"""One leaky neuron with two states that covers the LIF family of snnTorch, Norse and DelRec.

    i_t = alpha i_{t-1} + drive_t                              (i_t = drive_t without synaptic decay)
    u_t = beta v_{t-1} + gain i_t + offset - [reset of the step before]
    s_t = surrogate(u_t - threshold)
    v_t = u_t - [reset of this step]

A neuron is described here, not run: :func:`delaykit.functional.recurrence.rollout` runs it over a whole sequence with a
hand-written adjoint, and :meth:`LIFDynamics.step` is the slow, obvious step that judges it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import numbers
import weakref
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from delaykit import checks
from delaykit.errors import ConfigError, ShapeError
from delaykit.functional.surrogates import Slope

PARAMETERS = ("decay", "synapse_decay", "gain", "offset", "threshold", "reset_value")
NUMBERS = (*PARAMETERS, "rest")
FLAGS = ("reset_spares_input", "detach_reset", "synapse_state_decayed", "heaviside")
_ELEMENTWISE: weakref.WeakSet[Any] = weakref.WeakSet()  # surrogates that were seen to be


@dataclasses.dataclass(frozen=True)
class LIFDynamics:
    r"""Describe a leaky integrate-and-fire neuron; numbers and tensors broadcast over neurons.

    Resets, with ``r_t = surrogate(v_{t-1} - threshold)``:

    - ``reset="subtract"``: ``x - r threshold``; ``"zero"``: ``x - r (x - reset_value)``; ``"none"``: ``x``.
    - ``reset_when="next"``: ``r_t`` resets step t (snnTorch). With ``"zero"`` it wipes ``beta v + gain i + offset``,
      or only ``v`` where ``reset_spares_input`` (snnTorch's ``Leaky``).
    - ``reset_when="same"``: ``s_t`` resets ``u_t`` (Norse, DelRec).
    - ``reset_when="both"``: ``r_t`` at the beginning of the step and ``s_t - r_t`` at its end
      (snnTorch's ``reset_delay=False``); ``r_t`` is then always detached.

    Args:
        decay: beta, what the membrane keeps each step.
        threshold: membrane at which a spike is due.
        surrogate: elementwise function of ``u - threshold`` that returns spikes and whose autograd gives the surrogate
            gradient; it must be deterministic and its own parameters get no gradient. None: a readout, never spikes.
        synapse_decay: alpha, what the synaptic current keeps each step; None for no synaptic state.
        gain: factor of the current on the membrane.
        offset: constant current into the membrane (for a leak towards ``v_leak``: ``(1 - beta) v_leak``).
        reset: ``"subtract"``, ``"zero"`` (to ``reset_value``) or ``"none"``.
        reset_when: ``"next"``, ``"same"`` or ``"both"``, see above.
        reset_value: membrane after a reset to "zero".
        reset_spares_input: see above.
        detach_reset: True where no gradient flows through the spike that resets.
        rest: membrane before the first step.
        synapse_state_decayed: True where the library's synaptic state is ``alpha i_t`` (Norse), not ``i_t`` (snnTorch).
        heaviside: True where ``surrogate(x)`` is known to be 1 for x > 0 and 0 for all else; compiled steps then fire
            by themselves, and ask it for its gradient only.
        slope: the surrogate's derivative in closed form, where it is known to have this one; None: autograd is asked.

    Raises:
        ConfigError: a field of another kind, an unknown reset, or a combination that no adjoint is written for.

    Example:
        >>> neuron = LIFDynamics(decay=0.5, threshold=1.0, surrogate=lambda x: (x > 0).float(), reset_when="same")
        >>> spikes, state = neuron.step(torch.tensor([[0.8, 1.5]]), neuron.start(torch.zeros(1, 2)))
        >>> spikes.tolist(), state[1].tolist()
        ([[0.0, 1.0]], [[0.800000011920929, 0.5]])

    Reference:
        Eshraghian et al. 2023 (snnTorch), eq. 4-6; Norse ``functional.lif``; Queant et al. 2025 (DelRec), section 4.
    """

    decay: Tensor | float
    threshold: Tensor | float = 1.0
    surrogate: Callable[[Tensor], Tensor] | None = None
    synapse_decay: Tensor | float | None = None
    gain: Tensor | float = 1.0
    offset: Tensor | float = 0.0
    reset: Literal["subtract", "zero", "none"] = "subtract"
    reset_when: Literal["next", "same", "both"] = "next"
    reset_value: Tensor | float = 0.0
    reset_spares_input: bool = False
    detach_reset: bool = True
    rest: Tensor | float = 0.0
    synapse_state_decayed: bool = False
    heaviside: bool = False
    slope: Slope | None = None

    def __post_init__(self) -> None:
        self._check_kinds()
        if self.reset not in ("subtract", "zero", "none"):
            fix = "name one of the three"
            raise ConfigError("LIFDynamics", f"reset={self.reset!r}", "'subtract', 'zero' or 'none'", fix)
        if self.reset_when not in ("next", "same", "both"):
            fix = "name one of the three"
            raise ConfigError("LIFDynamics", f"reset_when={self.reset_when!r}", "'next', 'same' or 'both'", fix)
        wipes = self.reset == "zero" and self.reset_when == "next" and not self.reset_spares_input
        if wipes and not self.detach_reset:
            raise ConfigError(
                "LIFDynamics",
                "a reset to zero one step later with a gradient through the reset",
                "detach_reset=True or reset_spares_input=True",
                "pass one of them, or run the neuron by rollout_generic",
            )
        if isinstance(self.surrogate, nn.Module) and any(p.requires_grad for p in self.surrogate.parameters()):
            raise ConfigError(
                "LIFDynamics",
                "a surrogate with learned parameters, which would get no gradient",
                "a surrogate without parameters",
                "run the neuron by rollout_generic",
            )

    def _check_kinds(self) -> None:
        for name in NUMBERS:
            value = getattr(self, name)
            if not (_is_number(value) or (value is None and name == "synapse_decay")):
                expected = "a number or a tensor of real numbers" + (", or None" if name == "synapse_decay" else "")
                raise ConfigError(f"LIFDynamics.{name}", checks.shown(value), expected, f"correct {name}=")
        for name in FLAGS:
            checks.flag(f"LIFDynamics.{name}", getattr(self, name))
        if self.surrogate is not None and not callable(self.surrogate):
            expected = "an elementwise function, or None for a readout"
            raise ConfigError("LIFDynamics.surrogate", checks.shown(self.surrogate), expected, "pass a function")
        if self.slope is not None and not isinstance(self.slope, Slope):
            fix = "leave it out: autograd is asked then"
            raise ConfigError("LIFDynamics.slope", checks.shown(self.slope), "a Slope, or None", fix)

    def check_surrogate(self, like: Tensor) -> None:
        """Raise for a surrogate that is no elementwise function; asked once of each, before it runs.

        Args:
            like: any tensor with the dtype and device to use.

        Raises:
            ConfigError: it answers no tensor or one of another shape, writes to what it is given, or does not
                treat each element by itself.
        """
        surrogate = self.surrogate
        if surrogate is None or _is_known(surrogate):
            return
        x = torch.linspace(-1.0, 2.0, 6, dtype=like.dtype, device=like.device).reshape(2, 3)
        try:
            given = x.clone()
            wrong = _no_spikes(surrogate(given), surrogate(x[1:, 1:].clone()))
            wrong = wrong if torch.equal(given, x) else "a function that writes to its argument"
        except Exception as error:  # whatever somebody's function does
            wrong = f"a function that raises {type(error).__name__}: {error}"
        if wrong:
            fix = "correct it, or run the neuron by rollout_generic"
            raise ConfigError("LIFDynamics.surrogate", wrong, "an elementwise, deterministic function of a tensor", fix)
        with contextlib.suppress(TypeError):  # one that nothing can refer to weakly is asked again
            _ELEMENTWISE.add(surrogate)

    @property
    def spiking(self) -> bool:
        """Whether the neuron spikes; a readout does not."""
        return self.surrogate is not None

    @property
    def delayed_reset(self) -> bool:
        """Whether a spike of the step before resets this step."""
        return self.spiking and self.reset != "none" and self.reset_when in ("next", "both")

    @property
    def immediate_reset(self) -> bool:
        """Whether a spike resets its own step."""
        return self.spiking and self.reset != "none" and self.reset_when in ("same", "both")

    def parameters(self, like: Tensor) -> dict[str, Tensor]:
        """Give every number of the neuron one value a neuron, differentiable.

        Args:
            like: any tensor ``(..., post)`` with the dtype and device to use.

        Returns:
            ``{name: (post,)}`` for the names in :data:`PARAMETERS`; a missing synaptic decay is 0.

        Raises:
            ShapeError: a tensor that does not broadcast over the neurons.
        """
        out = {}
        for name in PARAMETERS:
            value = getattr(self, name)
            tensor = torch.as_tensor(0.0 if value is None else value, dtype=like.dtype, device=like.device)
            if tensor.numel() not in (1, like.shape[-1]):
                expected = f"one value or {like.shape[-1]} (one a neuron)"
                fix = "give one number, or one a neuron"
                raise ShapeError(f"LIFDynamics.{name}", f"shape {tuple(tensor.shape)}", expected, fix)
            out[name] = tensor.reshape(-1).expand(like.shape[-1])
        return out

    def start(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Make the state before the first step.

        Args:
            like: any tensor ``(batch, post)`` with the dtype and device to use.

        Returns:
            ``(synapse, membrane)``, each ``(batch, post)``: zeros and :attr:`rest`.
        """
        rest = torch.as_tensor(self.rest, dtype=like.dtype, device=like.device).detach()
        return torch.zeros_like(like), rest.reshape(-1).expand(like.shape).contiguous()

    def step(self, drive: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Advance one step by plain autograd: the judge of the fused rollout.

        Args:
            drive: everything that flows into the neuron at this step, ``(batch, post)``.
            state: ``(synapse, membrane)`` of the step before, from :meth:`start` or from here.

        Returns:
            ``(spikes, (synapse, membrane))``, each ``(batch, post)``; without surrogate the spikes are zero.
        """
        p = self.parameters(drive)
        synapse, membrane = state
        if self.synapse_decay is None:
            current = drive
        else:
            current = (synapse if self.synapse_state_decayed else p["synapse_decay"] * synapse) + drive
        earlier = self._earlier_spikes(membrane, p["threshold"])
        if earlier is not None and self.reset == "zero" and self.reset_spares_input:
            membrane = membrane - earlier * (membrane - p["reset_value"])
        before = p["decay"] * membrane + p["gain"] * current + p["offset"]
        if earlier is not None and self.reset == "subtract":
            before = before - earlier * p["threshold"]
        elif earlier is not None and not self.reset_spares_input:
            before = before - earlier * (before - p["reset_value"])
        spikes = torch.zeros_like(before)
        if self.surrogate is not None:
            spikes = self.surrogate(before - p["threshold"]).to(before.dtype)
        after = before
        if self.immediate_reset:
            gate = spikes.detach() if self.detach_reset else spikes
            gate = gate if earlier is None else gate - earlier
            after = before - gate * (p["threshold"] if self.reset == "subtract" else before - p["reset_value"])
        kept = p["synapse_decay"] * current if self.synapse_state_decayed else current
        return spikes, (kept, after)

    def _earlier_spikes(self, membrane: Tensor, threshold: Tensor) -> Tensor | None:
        if not self.delayed_reset or self.surrogate is None:
            return None
        earlier = self.surrogate(membrane - threshold).to(membrane.dtype)
        return earlier.detach() if self.detach_reset or self.reset_when == "both" else earlier


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_complex() and value.dtype != torch.bool
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and not math.isnan(value)


def _is_known(surrogate: Any) -> bool:
    try:
        return surrogate in _ELEMENTWISE
    except TypeError:  # it has no hash, or no weak reference
        return False


def _no_spikes(fired: Any, alone: Any) -> str:
    """Say what is wrong with what a surrogate answered to (2, 3) numbers, and to the last two of them alone."""
    if not isinstance(fired, Tensor) or not isinstance(alone, Tensor):
        return f"a function that answers {checks.shown(fired)}"
    if fired.shape != (2, 3) or alone.shape != (1, 2):
        return f"a function that turns shape (2, 3) into {tuple(fired.shape)}"
    if fired.is_complex():
        return "a function that answers complex numbers"
    alike = torch.allclose(fired[1:, 1:].detach(), alone.detach(), rtol=1e-4, atol=1e-6, equal_nan=True)
    return "" if alike else "a function whose answer for an element depends on the others, or on chance"
