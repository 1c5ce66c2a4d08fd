"""Judge a README: its examples run as printed and show something, and its links lead somewhere."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\]\(([^)#]+)[^)]*\)")
PROMISE = re.compile(r"^ *print\(.*\)  # ([\d(\[].*)$", re.MULTILINE)


class Example(NamedTuple):
    """A Python block that ran: its ``source``, the ``names`` it made, and its ``output``, what it printed."""

    source: str
    names: dict[str, Any]
    output: str


def check_readme(readme: str | os.PathLike[str], folder: str | os.PathLike[str]) -> list[Example]:
    """Run every Python block of a README by itself, as somebody would who copies it, and look where its links lead.

    A comment behind a ``print(...)`` that begins with a digit or a bracket is what it prints.

    Args:
        readme: the file; it holds at least one block, and links to files are relative to its folder.
        folder: where blocks run, for the files that they write.

    Returns:
        The blocks in their order, for what else a test asks of them. torch draws from seed 0 in each.

    Raises:
        AssertionError: no block; a block that shows nothing (it neither prints nor asserts), or prints something else
            than it says; a link to a file that is not there.
        Exception: whatever a block raises; a ``UserWarning`` is an error, since nobody copies what warns.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / "README.md").write_text("```python" + chr(10) + "print(1 + 1)  # 2" + chr(10) + "```")
        >>> [example.output for example in check_readme(folder / "README.md", folder)]
        ['2\\n']
    """
    readme = Path(readme)
    text = readme.read_text(encoding="utf-8")
    sources = BLOCK.findall(text)
    assert sources, f"{readme}: no Python block"
    lost = [link for link in LINK.findall(text) if "://" not in link and not (readme.parent / link).exists()]
    assert not lost, f"{readme}: links to files that are not there: {', '.join(lost)}"
    return [_run(source, f"{readme.name}, example {number}", folder) for number, source in enumerate(sources, start=1)]


def _run(source: str, where: str, folder: str | os.PathLike[str]) -> Example:
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = io.StringIO()
    with _inside(folder), torch.random.fork_rng(), contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        torch.manual_seed(0)
        exec(compile(source, where, "exec"), names)
    output = printed.getvalue()
    asserts = any(isinstance(node, ast.Assert) for node in ast.walk(ast.parse(source)))
    shows = output.strip() or (asserts and "print(" not in source)
    assert shows, f"{where} shows nothing: it prints nothing, and asserts nothing"
    for promise in PROMISE.findall(source):
        assert promise in output, f"{where} says that it prints {promise!r}; it printed {output!r}"
    return Example(source, names, output)


@contextlib.contextmanager
def _inside(folder: str | os.PathLike[str]) -> Iterator[None]:  # contextlib.chdir is there from 3.11 on
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
