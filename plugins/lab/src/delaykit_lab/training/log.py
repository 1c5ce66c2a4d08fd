"""A line an epoch in ``log.jsonl``, and TensorBoard's file beside it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import uuid
import warnings
from pathlib import Path
from typing import Any

from delaykit.sealed import commit, read_file


class Log:
    """``log.jsonl``, and TensorBoard's file where it is installed.

    Each epoch of a seed has one line, also where a run was stopped between its state and its line and went on.

    Args:
        folder: where to write.
        active: False on all processes but the main one.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for _ in range(2):
        ...     with Log(folder, True) as log:
        ...         log.write(0, {"epoch": 1, "train_loss": 0.5})
        >>> folder.joinpath("log.jsonl").read_text()
        '{"seed": 0, "epoch": 1, "train_loss": 0.5}\\n'
    """

    def __init__(self, folder: Path, active: bool) -> None:
        self.path, self.active = folder / "log.jsonl", active
        self.known = _written(self.path) if active else set()
        self.board: Board | None = None  # made with the first line, so that an early error leaves an empty folder

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        if self.board is not None:
            self.board.close()

    def write(self, seed: int, record: dict[str, Any]) -> None:
        """Add one epoch's record, unless it is there."""
        if not self.active or (seed, record["epoch"]) in self.known:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"seed": seed} | record) + "\n")
        self.known.add((seed, record["epoch"]))
        self.board = self.board or Board(self.path.parent / "tensorboard")
        values = {f"seed{seed}/{name}": value for name, value in record.items() if name != "epoch"}
        self.board.write(values, record["epoch"])


def _written(path: Path) -> set[tuple[int, int]]:
    """List the epochs that have a line; cut off what a run that was stopped while writing left of its last one."""
    content = read_file(path) if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if content != whole:
        commit(path, whole)
    known = set()
    for line in whole.splitlines():
        try:
            record = json.loads(line)
            known.add((int(record["seed"]), int(record["epoch"])))
        except (ValueError, KeyError, TypeError, RecursionError):  # somebody's own line: it stays, and tells no epoch
            continue
    return known


class Board:
    """TensorBoard's file of scalars, written at once; where it cannot be, one warning, and nothing more is written.

    torch's own writer leaves this to a thread, which ends with a raw error on a full disk, and holds back two minutes
    of records, which are lost with the process.

    Args:
        folder: where to write; nothing is without TensorBoard.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.file, self.writer = folder, None, None  # type: Path, Any, Any
        try:
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ModuleNotFoundError as error:
            if error.name != "tensorboard":
                raise
            return
        name = f"events.out.tfevents.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.{uuid.uuid4().hex[:8]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.file = (folder / name).open("ab")
            self.writer = RecordWriter(self.file)
            self._add(file_version="brain.Event:2")
        except OSError as problem:
            self._give_up(problem)

    def write(self, values: dict[str, float], step: int) -> None:
        """Add scalars of one step."""
        if self.writer is None:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        try:
            self._add(summary=Summary(value=scalars), step=step)
        except OSError as problem:
            self._give_up(problem)

    def close(self) -> None:
        """Close the file."""
        file, self.file, self.writer = self.file, None, None
        if file is not None:
            with contextlib.suppress(OSError):  # all records were flushed
                file.close()

    def _add(self, **content: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self.writer.write(Event(wall_time=time.time(), **content).SerializeToString())
        self.writer.flush()

    def _give_up(self, problem: OSError) -> None:
        self.close()
        found = f"TensorBoard's file cannot be written ({problem})"
        fix = "training goes on without it; log.jsonl has all its numbers"
        warnings.warn(f"{self.folder}: {found}; expected a folder with space. To go on: {fix}.", stacklevel=3)
