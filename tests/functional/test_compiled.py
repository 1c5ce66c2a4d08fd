"""Kernels are compiled once and kept on disk; a disk that cannot be read or written costs a warning, no result."""

from __future__ import annotations

import ast
import errno
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import delaykit
from delaykit.functional import compiled as module
from delaykit.functional.compiled import compiled, compiled_for

numba = pytest.importorskip("numba", reason="needs Numba, the extra `fast`")


@pytest.fixture(autouse=True)
def forget_warnings() -> Iterator[None]:
    module._warn_of_cache.cache_clear()
    yield
    module._warn_of_cache.cache_clear()


def doubling() -> Callable[..., None]:
    @compiled()
    def double(x):  # type: ignore[no-untyped-def]
        for n in range(len(x)):
            x[n] *= 2

    return double


def assert_it_doubles(double: Callable[..., None]) -> None:
    for dtype in (np.float32, np.float64):
        x = np.arange(4, dtype=dtype)
        double(x)
        assert x.tolist() == [0, 2, 4, 6]  # once, though the first try failed


@compiled(fastmath=())
def two_of(x):  # type: ignore[no-untyped-def]
    return 2 * x


def calling() -> Callable[..., None]:
    @compiled(calls=[two_of])
    def double(x):  # type: ignore[no-untyped-def]
        for n in range(len(x)):
            x[n] = two_of(x[n])

    return double


def test_a_kernel_calls_another_that_is_compiled_by_its_own_rules(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    assert_it_doubles(calling())
    assert two_of(1.5) == 3.0
    from numba.core.caching import FunctionCache

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FunctionCache, "load_overload", fail)
    with pytest.warns(RuntimeWarning, match="No space left.*NUMBA_CACHE_DIR"):
        assert_it_doubles(calling())


@pytest.mark.parametrize("failing", ["save_overload", "load_overload"])
def test_a_full_disk_or_an_unreadable_cache_warns_once_and_runs(
    failing: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))  # what an earlier run has cached would be loaded
    from numba.core.caching import FunctionCache

    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(FunctionCache, failing, fail)
    with pytest.warns(RuntimeWarning, match="No space left.*NUMBA_CACHE_DIR") as told:
        assert_it_doubles(doubling())
        assert_it_doubles(doubling())
    assert len(told) == 1


def test_no_place_for_a_cache_warns_once_and_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def without_place(*, cache: bool, **options: object) -> object:
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", without_place)
    with pytest.warns(RuntimeWarning, match="no locator available") as told:
        assert_it_doubles(doubling())
    assert len(told) == 1


def test_a_healthy_cache_is_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_it_doubles(doubling())


def three_times(numba):  # type: ignore[no-untyped-def]
    @numba.extending.intrinsic
    def treble(typingctx, x):  # type: ignore[no-untyped-def]
        def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return builder.fmul(arguments[0], context.get_constant(x, 3.0))

        return x(x), generate

    return {"treble": treble}


treble = None


def trebles(x):  # type: ignore[no-untyped-def]
    x[0] = treble(x[0])


def test_a_kernel_of_intrinsics_is_kept_on_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    njit, made = numba.njit, []

    def noted(**options: object) -> Callable[[Callable[..., None]], Callable[..., None]]:
        return lambda kernel: made.append(njit(**options)(kernel)) or made[-1]

    monkeypatch.setattr(numba, "njit", noted)
    for _ in range(2):  # as in a second process, the intrinsics are others
        x = np.ones(1)
        compiled(intrinsics=three_times)(trebles)(x)
        assert x.tolist() == [3.0]
    assert [len(kernel.stats.cache_hits) for kernel in made] == [0, 1]


def twice(x):  # type: ignore[no-untyped-def]
    trebles(x)
    trebles(x)


def test_a_part_finds_what_was_made_for_its_kernel() -> None:
    x = np.ones(1)
    compiled(parts=[trebles], intrinsics=three_times)(twice)(x)
    assert x.tolist() == [9.0]


def change(x):  # type: ignore[no-untyped-def]
    x[0] += 1


def changes(x):  # type: ignore[no-untyped-def]
    change(x)


def test_a_kernel_is_compiled_anew_when_a_part_of_it_is_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    numbers, old = np.zeros(1), change

    def new(x):  # type: ignore[no-untyped-def]
        x[0] += 2

    new.__name__ = old.__name__
    for part, total in ((old, 1), (new, 3), (old, 4)):
        compiled(parts=[part])(changes)(numbers)
        assert numbers[0] == total


def test_branches_that_constants_rule_out_are_not_compiled() -> None:
    @compiled_for()
    def written(doubles: bool) -> Callable[..., None]:
        def run(x):  # type: ignore[no-untyped-def]
            if doubles:
                x[0] *= 2
            else:
                x[0] = "no number"  # would not compile

        return run

    x = np.ones(1, np.float32)
    written(True)(x)
    assert x.tolist() == [2]
    assert written(True) is written(True)
    with pytest.raises(numba.TypingError):
        written(False)(x)


def _kernels() -> Iterator[tuple[str, ast.FunctionDef]]:
    for path in Path(delaykit.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and any("compiled" in ast.unparse(d) for d in node.decorator_list):
                yield path.name, node


def test_no_kernel_writes_an_array_into_a_slice() -> None:
    """Numba compiles the message of shapes that do not fit with it, which takes longer than the kernel."""
    found, kernels = [], list(_kernels())
    for name, kernel in kernels:
        numbers = {"nothing"}  # names of scalars
        for node in ast.walk(kernel):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
                slices = any(isinstance(part, ast.Slice) for part in ast.walk(node.targets[0]))
                scalar = isinstance(node.value, ast.Constant) or ast.unparse(node.value) in numbers
                found += [f"{name}: {ast.unparse(node)}"] * (slices and not scalar)
    assert len(kernels) > 20 and not found
