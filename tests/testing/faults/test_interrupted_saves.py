"""A save that is stopped, or finds the disk full, loses nothing: the earlier checkpoint stands until the new one."""

from __future__ import annotations

import os
import signal
import traceback

import pytest
import torch
from disk import FailingDisk

import delaykit as dk

SIZE, CALLS = 40, 6  # a save opens, writes twice, flushes, syncs, renames


def net_of(value, size=SIZE):
    net = torch.nn.Sequential(torch.nn.Linear(size, 2))
    return dk.wrap_(net, {"0": dk.At(dk.FreeDelay("axonal", init=float(value)), reset="manual")})


def value_at(path, size=SIZE):
    """Return the one value of a checkpoint's delays."""
    found = dk.load(torch.nn.Sequential(torch.nn.Linear(size, 2)), path)[0].dk.delay.delay.detach()
    assert bool((found == found[0]).all())
    return float(found[0])


def test_a_save_makes_the_calls_that_are_failed_here(tmp_path, monkeypatch):
    disk = FailingDisk(monkeypatch)
    dk.save(net_of(1), tmp_path / "d")
    assert disk.calls == CALLS


@pytest.mark.parametrize("earlier", [True, False])
@pytest.mark.parametrize("problem", ["full", "stopped"])
@pytest.mark.parametrize("stop", range(CALLS))
def test_any_call_may_fail_twice_in_a_row(tmp_path, monkeypatch, stop, problem, earlier):
    path = tmp_path / "d"
    if earlier:
        dk.save(net_of(1), path)
    for attempt in (2, 3):
        with monkeypatch.context() as patch:
            FailingDisk(patch, stop, None if problem == "full" else KeyboardInterrupt())
            with pytest.raises(dk.CheckpointError if problem == "full" else KeyboardInterrupt) as caught:
                dk.save(net_of(attempt), path)
        if problem == "full":
            assert "No space left" in caught.value.found and caught.value.fix
        if earlier:
            assert value_at(path) == 1
        else:
            assert list(tmp_path.iterdir()) == []
    dk.save(net_of(4), path)
    assert value_at(path) == 4 and [file.name for file in tmp_path.iterdir()] == ["d.safetensors"]


def forked(act):
    """Run ``act`` in a copy of this process, which has torch already; return the number of the process."""
    child = os.fork()
    if child:
        return child
    try:
        act()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


def killed_at(path, call, value):
    """Save in a process of its own, which is killed at one of its calls to the system."""

    def act():
        with pytest.MonkeyPatch.context() as patch:
            disk = FailingDisk(patch)
            disk.before = lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == call else None
            dk.save(net_of(value), path)

    _, status = os.waitpid(forked(act), 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


@pytest.mark.parametrize("call", range(CALLS))
def test_two_killed_saves_in_a_row_leave_the_earlier_checkpoint(tmp_path, call):
    dk.save(net_of(1), tmp_path / "d")
    killed_at(tmp_path / "d", call, 2)
    killed_at(tmp_path / "d", (call + 2) % CALLS, 3)
    assert value_at(tmp_path / "d") == 1
    dk.save(net_of(4), tmp_path / "d")
    assert value_at(tmp_path / "d") == 4


def killed_while_saving(path, generator, processes):
    """Let processes save over and over, and kill them after some saves of the first, wherever they are then."""
    nets = [net_of(value) for value in range(8)]
    reading, writing = os.pipe()

    def act():
        for turn in range(10**6):
            dk.save(nets[turn % 8], path)
            os.write(writing, b".")

    children = [forked(act) for _ in range(processes)]
    for _ in range(int(torch.randint(1, 12, (), generator=generator))):
        os.read(reading, 1)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os.close(reading), os.close(writing)


@pytest.mark.parametrize("kills", [3, pytest.param(60, marks=pytest.mark.slow)])
@pytest.mark.parametrize("processes", [1, 2])
def test_saves_killed_anywhere_leave_a_checkpoint(tmp_path, kills, processes):
    generator = torch.Generator().manual_seed(processes)
    dk.save(net_of(9), tmp_path / "d")
    seen = set()
    for _ in range(kills):
        killed_while_saving(tmp_path / "d", generator, processes)
        seen.add(value_at(tmp_path / "d"))
    assert seen <= set(range(8))  # whole, and one of those that were saved


@pytest.mark.parametrize("turns", [3, pytest.param(40, marks=pytest.mark.slow)])
def test_eight_processes_save_to_one_path_at_once(tmp_path, turns):
    nets = [net_of(value) for value in range(8)]

    def act(net):
        for _ in range(turns):
            dk.save(net, tmp_path / "d")

    children = [forked(lambda net=net: act(net)) for net in nets]
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert value_at(tmp_path / "d") in range(8)
    assert [file.name for file in tmp_path.iterdir()] == ["d.safetensors"]
