"""The kernels of synapses that decay go in blocks of steps and inputs: every remainder, and bytes for spikes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from delaykit.functional.decay_tape import SynapseTape
from delaykit.functional.dispatch import backend, implementation_of
from delaykit.functional.step_tape.recording import ByteRecording

CPU = torch.device("cpu")


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("pre", [1, 16, 37])
@pytest.mark.parametrize("time", [0, 1, 4, 7, 8, 21])
@pytest.mark.parametrize("density", [0.05, 1.0])
def test_every_remainder_of_a_block_equals_plain_torch(time: int, pre: int, density: float) -> None:
    x = drawn(time, 3, pre) * (drawn(time, 3, pre, seed=1) < density)
    decay, weight, y = drawn(20, pre, seed=2), drawn(20, pre, seed=3) - 0.5, drawn(time, 3, 20, seed=4) - 0.5
    found = []
    for name in ("torch", "cpu"):
        with backend(name):
            forward = implementation_of("decay_filter", CPU)(x, decay, weight)
            pull = implementation_of("decay_filter_gradient", CPU)
            found.append([forward, *pull(x, y, decay, weight, True), *pull(x, y, decay, weight, False)[1:]])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-12, atol=1e-12)


def test_threads_change_no_bit() -> None:
    x = drawn(50, 6, 45) * (drawn(50, 6, 45, seed=1) < 0.1)
    decay, weight, y = drawn(64, 45, seed=2), drawn(64, 45, seed=3) - 0.5, drawn(50, 6, 64, seed=4) - 0.5
    found, before = [], torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            pull = implementation_of("decay_filter_gradient", CPU)
            found.append([implementation_of("decay_filter", CPU)(x, decay, weight), *pull(x, y, decay, weight, True)])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, three) for one, three in zip(*found, strict=True))


@pytest.mark.parametrize("needs_grad_x", [False, True])
@pytest.mark.parametrize("odd", [0.5, 256.0, -1.0])
def test_spikes_are_bytes_until_an_input_comes_that_bytes_cannot_hold(odd: float, needs_grad_x: bool) -> None:
    spikes = (drawn(24, 5, 6) < 0.3).double()
    graded = spikes.clone()
    graded[13, 2, 3] = odd
    decay, weight = drawn(4, 6, seed=1).requires_grad_(), drawn(4, 6, seed=2).requires_grad_()
    for inputs, kind in ((spikes, torch.uint8), (graded, torch.float64)):
        x = inputs.clone().requires_grad_(needs_grad_x)
        tape = SynapseTape(decay, weight)
        found = torch.stack([tape.step(row) for row in x])
        recording = tape._segment.recording  # type: ignore[union-attr]
        assert isinstance(recording, ByteRecording) and recording.rows.dtype == kind
        state, out = x.new_zeros(5, 4, 6), []
        for row in x:
            state = decay * state + weight * row.unsqueeze(1)
            out.append(state.sum(-1))
        wanted = torch.stack(out)
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-11)
        leaves = [decay, weight, x] if needs_grad_x else [decay, weight]
        mine, true = (torch.autograd.grad(y.pow(2).sum(), leaves) for y in (found, wanted))
        for one, two in zip(mine, true, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-11, atol=1e-11)


def test_rows_that_a_wide_segment_left_widen_the_next() -> None:
    rows = [ByteRecording(2, 3, 0, torch.float32, CPU) for _ in range(2)]
    rows[0].write(rows[0].reserve(), torch.full((3, 2), 0.25), implementation_of("tape_store", CPU))
    rows[1].extend(rows[0].newest(1))
    assert rows[1].rows[:, 0].eq(0.25).all() and rows[1].rows.dtype == torch.float32
