"""What fits a screen and what fits a head: functions, files and folders have a size that they do not outgrow.

A function is counted with its docstring, but without a kernel inside of it that it compiles; a file without docstrings;
of a folder, the files of Python in it (of tests, those of tests), and no stubs, markers or data.
Compiled kernels are exempt: what they share goes by arguments, since a compiled loop takes no objects.
"""

from __future__ import annotations

import ast
import collections
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for base in (ROOT / "delaykit", *ROOT.glob("plugins/*/src")) for path in base.rglob("*.py"))
TESTS = sorted(path for base in (ROOT / "tests", *ROOT.glob("plugins/*/tests")) for path in base.rglob("test_*.py"))
FUNCTION, ARGUMENTS, FILE, FOLDER = 60, 12, 320, {"delaykit": 15, "plugins": 20, "tests": 25}
BY_POSITION = 5  # of the arguments of a constructor that takes more of them than a function may, all others by name
COMPILERS = ("compiled", "compiled_for", "jit", "njit")  # decorators
EXEMPT = {
    "delaykit/functional/recurrence/neuron/rows.py": "one source for Numba and for plugins' kernels, compiled there",
    "plugins/spatial/src/delaykit_spatial/exact/numba.py": "torch.library asks for one signature of all its functions",
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def is_kernel(node: ast.AST) -> bool:
    if not isinstance(node, Function):
        return False
    names = [ast.unparse(d.func if isinstance(d, ast.Call) else d).rpartition(".")[2] for d in node.decorator_list]
    return any(name in COMPILERS for name in names)


def functions(tree: ast.AST) -> Iterator[Function]:
    """Yield all functions but kernels, and what is inside of these."""
    for node in ast.iter_child_nodes(tree):
        if not is_kernel(node):
            if isinstance(node, Function):
                yield node
            yield from functions(node)


def span(node: ast.stmt) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def docstring(node: ast.AST) -> int:
    """Number of its lines."""
    body = getattr(node, "body", [])
    first = body[0] if isinstance(body, list) and body else None
    text = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str)
    return span(first) if first is not None and text else 0


def size(function: Function) -> int:
    inner = [node for node in ast.walk(function) if node is not function and is_kernel(node)]
    return span(function) - sum(span(node) for node in inner if isinstance(node, ast.stmt))


def takes_too_much(function: Function) -> bool:
    given = function.args
    by_position = [a for a in (*given.posonlyargs, *given.args) if a.arg not in ("self", "cls", "ctx")]
    if len(by_position) + len(given.kwonlyargs) <= ARGUMENTS:
        return False
    return function.name != "__init__" or len(by_position) > BY_POSITION


def found(path: Path) -> list[str]:
    where = path.relative_to(ROOT).as_posix()
    if where in EXEMPT:
        return []
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    inside = list(functions(tree))
    problems = [f"{where}:{f.lineno} {f.name}: {size(f)} lines" for f in inside if span(f) > FUNCTION < size(f)]
    problems += [f"{where}:{f.lineno} {f.name}: its arguments" for f in inside if takes_too_much(f)]
    lines = len(text.splitlines())
    if lines > FILE:
        lines -= sum(docstring(node) for node in ast.walk(tree))
    return problems + ([f"{where}: {lines} lines"] if lines > FILE else [])


def test_functions_and_files_fit() -> None:
    assert not [problem for path in SOURCES for problem in found(path)]


def test_folders_fit() -> None:
    number = collections.Counter(path.parent.relative_to(ROOT) for path in (*SOURCES, *TESTS))
    most = {folder: FOLDER["plugins" if "src" in folder.parts else folder.parts[0]] for folder in number}
    assert {str(folder): n for folder, n in number.items() if n > most[folder]} == {}


def test_every_exemption_is_needed() -> None:
    for name in EXEMPT:
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        assert [f for f in functions(tree) if takes_too_much(f) or size(f) > FUNCTION], name


LONG = "def f():\n" + "    x = 1\n" * FUNCTION
WIDE = ", ".join(f"a{k}" for k in range(ARGUMENTS + 1))


@pytest.mark.parametrize(
    ("source", "fits"),
    [
        (LONG, False),
        (LONG.removesuffix("    x = 1\n"), True),
        ('def f():\n    """One.\n\n    Two."""\n' + "    x = 1\n" * (FUNCTION - 3), False),
        (f"@compiled()\n{LONG}", True),
        ("def f():\n" + "".join(f"    {line}\n" for line in f"@numba.njit(nogil=True)\n{LONG}".splitlines()), True),
        ("class A:\n" + "".join(f"    {line}\n" for line in LONG.splitlines()), False),
        (f"def f({WIDE}): ...", False),
        (f"def f(*, {WIDE}): ...", False),
        (f"def __init__(self, a, *, {WIDE}): ...", True),
        (f"def __init__(self, {WIDE}): ...", False),
    ],
)
def test_the_measure_finds_what_does_not_fit(source: str, fits: bool) -> None:
    all_fit = not any(size(f) > FUNCTION or takes_too_much(f) for f in functions(ast.parse(source)))
    assert all_fit == fits
