"""A working memory: a recurrent network whose motif tensor holds spike patterns, and its file."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from delaykit import checks
from delaykit.errors import CheckpointError, ConfigError, ShapeError
from delaykit.functional.inputs import check_tensors
from delaykit.sealed import commit, read_file, seal, unseal
from delaykit_motifs.dynamics import MotifDynamics
from delaykit_motifs.membrane import leaky_membrane
from delaykit_motifs.network import Run, free_run
from delaykit_motifs.operators import tapped_linear
from delaykit_motifs.patterns import check_patterns

FORMAT = "delaykit-motifs/1"
RUNAWAY = 0.08  # spikes a neuron and step after which a recall is given up; memories fire at 0.001
SPARSE = 0.4  # of taps in use, below which a file lists them one by one
MOST = 1e9  # taps that a file which lists only those in use may ask for: a number in it must not take all memory


@checks.annotated
class MotifMemory(nn.Module):
    """Remember spike patterns and complete them from their first ``depth`` steps.

    Args:
        taps: ``(neuron, neuron, depth)``: post, pre, tau; a spike arrives ``tau + 1`` steps later. From
            :func:`~delaykit_motifs.hebb.hebbian`, or zeros to be trained.
        dynamics: threshold, leak and reset.

    Raises:
        ShapeError: taps that are not square.

    Example:
        >>> from delaykit_motifs import bernoulli_patterns, f1, hebbian
        >>> patterns = bernoulli_patterns(200, 2, 64, 0.01, torch.Generator().manual_seed(0))
        >>> memory = MotifMemory(hebbian(patterns, depth=21))
        >>> f1(memory.recall(patterns[:21], 200).spikes, patterns, start=21)
        1.0
    """

    def __init__(self, taps: Tensor, dynamics: MotifDynamics | None = None) -> None:
        super().__init__()
        check_tensors("MotifMemory", taps=taps)
        if dynamics is not None and not isinstance(dynamics, MotifDynamics):
            fix = "pass e.g. MotifDynamics(0.95, 0.7)"
            raise ConfigError("MotifMemory.dynamics", f"a {type(dynamics).__name__}", "a MotifDynamics or None", fix)
        if taps.dim() != 3 or taps.shape[0] != taps.shape[1]:
            raise ShapeError("MotifMemory", f"taps {tuple(taps.shape)}", "(neuron, neuron, depth)", "make them square")
        self.dynamics = MotifDynamics() if dynamics is None else dynamics
        bank = taps.detach().permute(1, 2, 0).contiguous()
        self.taps = nn.Parameter(bank.permute(2, 0, 1))

    @property
    def depth(self) -> int:
        """Number of delays, which is also the length of a full cue."""
        return self.taps.shape[2]

    @property
    def neurons(self) -> int:
        """Number of neurons."""
        return self.taps.shape[0]

    @checks.annotated
    def recall(
        self,
        cue: Tensor,
        steps: int,
        *,
        noise: Tensor | None = None,
        mute: Tensor | None = None,
        join: bool = False,
        runaway: float = RUNAWAY,
    ) -> Run:
        """Show the beginning of some patterns and let the network complete them.

        Args:
            cue: spikes ``(cue steps, pattern, neuron)``. Steps before the pattern, such as background, may come first.
            steps: length of the answer, the cue included.
            noise: spikes forced at any time, ``(steps, pattern, neuron)``; None: none.
            mute: bool ``(neuron,)``, True where a neuron never fires.
            join: while the cue is shown, let neurons fire by themselves, too; otherwise they fire exactly the cue and
                their membranes start at 0 behind it.
            runaway: stop a network that has fired in more than this share of all steps and neurons.

        Returns:
            Spikes ``(steps, pattern, neuron)``, and where runaways were stopped.

        Raises:
            ShapeError: a cue longer than the answer, or of other neurons.
        """
        if cue.dim() != 3 or cue.shape[0] > steps or cue.shape[2] != self.neurons:
            found, expected = f"a cue {tuple(cue.shape)}", f"(at most {steps}, pattern, {self.neurons})"
            raise ShapeError("MotifMemory.recall", found, expected, "pass patterns[:memory.depth]")
        drive = torch.zeros(steps, *cue.shape[1:], dtype=torch.bool, device=cue.device)
        drive[: len(cue)] = cue != 0
        if noise is not None:
            drive |= noise != 0
        return free_run(self.taps, drive, self.dynamics, 0 if join else len(cue), mute, runaway)

    @checks.annotated
    def membrane(self, patterns: Tensor) -> Tensor:
        """Compute the membranes that would be if the network fired the patterns (teacher forcing); differentiable.

        Args:
            patterns: spikes ``(time, pattern, neuron)``: they are the contexts, and they reset.

        Returns:
            ``(time - depth, pattern, neuron)``, from step ``depth`` on, where a recall begins to run free.
        """
        check_patterns("MotifMemory.membrane patterns", patterns, self.neurons)
        spikes = patterns.to(self.taps.dtype)
        current = tapped_linear(spikes[:-1], self.taps)[self.depth - 1 :]
        before = spikes[self.depth - 1 : -1].clone()
        before[:1] = 0  # membranes start at 0 behind the cue
        if self.dynamics.reset == "hard":
            return leaky_membrane(current, self.dynamics.beta * (1 - before))
        return leaky_membrane(current - self.dynamics.theta * before, torch.full_like(before, self.dynamics.beta))

    @checks.annotated
    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the memory to one safetensors file, whole or not at all; sparse memories list their taps in use."""
        bank = self.taps.detach().permute(1, 2, 0).contiguous().cpu()
        used = bank.flatten().nonzero().squeeze(1)
        if len(used) < SPARSE * bank.numel():
            tensors = {"index": used, "value": bank.flatten()[used]}
        else:
            tensors = {"bank": bank}
        about = {"format": FORMAT, "shape": list(bank.shape), "dynamics": dataclasses.asdict(self.dynamics)}
        commit(Path(path), seal(tensors, {"format": FORMAT, "about": json.dumps(about)}))

    @classmethod
    @checks.annotated
    def load(cls, path: str | os.PathLike[str]) -> MotifMemory:
        """Read what :meth:`save` wrote.

        Raises:
            CheckpointError: a file that is missing, truncated, changed, foreign or newer.
        """
        where, fix = str(path) or "''", "pass a file written by MotifMemory.save"
        try:
            header, tensors = unseal(read_file(path), where, former="")  # the first ones had no digest
            about = json.loads(header.get("about", "{}"))
        except (OSError, ValueError, RecursionError) as problem:
            raise CheckpointError(where, f"no readable memory ({problem})", "a safetensors file", fix) from None
        about = about if isinstance(about, dict) else {}
        if about.get("format") != FORMAT:
            raise CheckpointError(where, f"format {about.get('format')!r:.80}", FORMAT, fix)
        try:
            bank, dynamics = _bank(about["shape"], tensors), MotifDynamics(**about["dynamics"])
        except (ValueError, KeyError, TypeError, IndexError, RuntimeError, MemoryError, ConfigError) as problem:
            found = f"a memory that does not hold together ({type(problem).__name__}: {problem!s:.300})"
            raise CheckpointError(where, found, "what MotifMemory.save writes", fix) from None
        return cls(bank.permute(2, 0, 1), dynamics)

    def extra_repr(self) -> str:
        used = int(torch.count_nonzero(self.taps.detach()))
        share = used / max(1, self.taps.numel())
        return f"{self.neurons} neurons, {self.depth} delays, {share:.1%} of taps in use, {self.dynamics}"


def _bank(shape: Any, tensors: dict[str, Tensor]) -> Tensor:
    """Return all taps ``(pre, depth, post)`` of a file, after its sizes were checked against what is in it."""
    if not (isinstance(shape, list) and len(shape) == 3 and all(type(size) is int and size > 0 for size in shape)):
        raise ValueError(f"shape {shape!r:.80}")
    if shape[0] != shape[2]:
        raise ValueError(f"taps between {shape[0]} and {shape[2]} neurons")
    bank = tensors.get("bank")
    if bank is None:
        index, value = tensors["index"], tensors["value"]
        if math.prod(shape) > MOST:
            raise ValueError(f"shape {shape!r:.80}, more than {MOST:.0e} taps")
        if index.dtype != torch.int64 or index.shape != value.shape or index.dim() != 1:
            raise ValueError(f"places {tuple(index.shape)}, {index.dtype}, of values {tuple(value.shape)}")
        if len(index) and not 0 <= int(index.min()) <= int(index.max()) < math.prod(shape):
            raise ValueError(f"places {int(index.min())} .. {int(index.max())} of shape {shape}")
        bank = value.new_zeros(math.prod(shape))
        bank[index] = value
    if not bank.is_floating_point() or not bool(torch.isfinite(bank).all()):
        raise ValueError(f"taps of {bank.dtype}, or not finite")
    return bank.view(shape)
