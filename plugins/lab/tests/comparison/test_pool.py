"""Workers end with their parent, whatever ends it, and in the middle of what they do."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import click
import pytest

import delaykit as dk
from delaykit_lab.commands.train import sentences
from delaykit_lab.comparison import workers

PARENT = """
import signal, sys, threading

signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background passes on that they are ignored
signal.signal(signal.SIGHUP, signal.SIG_DFL)

def hang(path):
    with open(path, "w") as line:  # held as long as the worker lives
        line.write("x")
        line.flush()
        threading.Event().wait()

if __name__ == "__main__":
    from delaykit_lab.commands.train import sentences
    from delaykit_lab.comparison.pool import worker_pool

    with sentences(), worker_pool(2) as pool:
        list(pool.map(hang, [sys.argv[1]] * 3))
"""
NUMBERS = signal.SIGINT, signal.SIGTERM
SECONDS = 60  # after which a process that should end is taken as one that does not


def read(line: int) -> bytes:
    assert select.select([line], [], [], SECONDS)[0], "the workers are alive"
    return os.read(line, 1)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX")
@pytest.mark.parametrize("name", ["SIGKILL", "SIGINT", "SIGTERM", "SIGHUP"])
def test_workers_end_with_their_parent(tmp_path, name):
    (tmp_path / "parent.py").write_text(PARENT)
    os.mkfifo(tmp_path / "line")
    line = os.open(tmp_path / "line", os.O_RDONLY | os.O_NONBLOCK)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, str(tmp_path / "parent.py"), str(tmp_path / "line")]
    parent = subprocess.Popen(words, env=environment, start_new_session=True, stderr=subprocess.PIPE, text=True)
    os.set_blocking(line, True)
    try:
        while not select.select([line], [], [], 0.1)[0]:
            assert parent.poll() is None, parent.communicate()
        started = os.read(line, 1) + read(line)
        assert started == b"xx"
        parent.send_signal(getattr(signal, name))  # to it alone
        assert read(line) == b""  # the end of the line: no worker holds it any more
        said = parent.communicate(timeout=SECONDS)[1]
    finally:
        os.close(line)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(parent.pid, signal.SIGKILL)
    if name in ("SIGINT", "SIGTERM"):
        assert parent.returncode == 1 and "add --resume" in said
    else:
        assert parent.returncode == -getattr(signal, name)


class Failed(Exception):
    """Stands for submitit's."""


@pytest.mark.parametrize(("problem", "told"), [
    (KeyboardInterrupt(), KeyboardInterrupt), (Failed("memory"), dk.TrainingError), (ValueError("x"), ValueError),
])  # fmt: skip
def test_jobs_of_a_cluster_are_cancelled_with_the_comparison(tmp_path, monkeypatch, problem, told):
    core = SimpleNamespace(utils=SimpleNamespace(UncompletedJobError=Failed, FailedJobError=Failed))
    job, cancelled = MagicMock(), []
    job.result.side_effect = problem
    job.cancel.side_effect = lambda check: cancelled.append(check)
    executor = MagicMock(**{"submit.return_value": job})
    monkeypatch.setitem(sys.modules, "submitit", MagicMock(core=core, AutoExecutor=lambda **_: executor))
    units = [({"seed": seed, "model": "snn:4"}, False) for seed in range(3)]
    with pytest.raises(told):
        workers.run_all(units, tmp_path, backend="submitit")
    assert cancelled == [False] * 3  # --resume submits them again, and not beside themselves


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interruption_that_a_compiler_swallows_is_told_all_the_same(name):
    before = signal.default_int_handler, signal.SIG_DFL
    found = [signal.signal(number, handler) for number, handler in zip(NUMBERS, before, strict=True)]
    with pytest.raises(click.ClickException, match="interrupted; .* add --resume"), sentences():  # noqa: PT012
        with contextlib.suppress(KeyboardInterrupt):  # as the callback of a compiler does
            signal.raise_signal(getattr(signal, name))
        raise RuntimeError("no compiled object yet for <Library 'mix_rows'>")
    assert tuple(signal.signal(number, handler) for number, handler in zip(NUMBERS, found, strict=True)) == before


def test_an_error_without_an_interruption_stays_what_it_is():
    with pytest.raises(RuntimeError, match="no compiled object"), sentences():
        raise RuntimeError("no compiled object yet for <Library 'mix_rows'>")
