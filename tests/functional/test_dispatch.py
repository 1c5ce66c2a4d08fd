"""The dispatcher: which code runs where, how a plugin joins, and what a wrong choice is told."""

from __future__ import annotations

import importlib
import importlib.util
import operator
import subprocess
import sys
import threading
import types
from collections.abc import Iterator

import pytest
import torch

from delaykit import Operator, hookimpl
from delaykit.arrivals import Linear
from delaykit.errors import ConfigError, DelaykitError, UnknownNameError
from delaykit.functional import dispatch as dispatcher
from delaykit.functional.delayed_linear import delayed_linear
from delaykit.functional.dispatch import backend, chosen, implementation_of, register
from delaykit.plugins import registry
from delaykit.plugins.loader import PluginLoader, PluginSource
from tests.functional.judging import needs_numba

CPU = torch.device("cpu")
HAS_NUMBA = importlib.util.find_spec("numba") is not None


@pytest.fixture(autouse=True)
def forget_packages() -> Iterator[None]:
    """What a test pretends to be installed is not remembered."""
    dispatcher._fault.cache_clear()
    yield
    dispatcher._fault.cache_clear()


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> dict:
    """A table of our own, so that a test's operators do not outlive it."""
    own = dict(dispatcher._found)
    monkeypatch.setattr(dispatcher, "_found", own)
    return own


def without(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))


@pytest.mark.skipif(not HAS_NUMBA, reason="Numba is not installed, so there is nothing to prefer on the cpu")
def test_the_cpu_prefers_numba() -> None:
    assert implementation_of("tap_filter", CPU).__module__.endswith(".numba")


@needs_numba
def test_few_multiply_adds_wait_for_no_compiler() -> None:
    cpu, few = torch.device("cpu"), dispatcher.FEW
    for name in ("tap_filter", "tap_correlation", "synapse_filter", "synapse_correlation"):
        by_size = [implementation_of(name, cpu, work).__module__.rpartition(".")[2] for work in (few - 1, few)]
        assert by_size == ["torch", "numba"]
        with backend("cpu"):
            assert implementation_of(name, cpu, 1).__module__.endswith("numba")


def test_without_numba_the_cpu_runs_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    without("numba", monkeypatch)
    assert implementation_of("tap_filter", CPU).__module__.endswith(".torch")
    with pytest.raises(ConfigError, match=r"numba.*delaykit\[fast\]"), backend("cpu"):
        pass


def test_without_triton_cuda_runs_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    without("triton", monkeypatch)
    assert implementation_of("tap_filter", torch.device("cuda")).__module__.endswith(".torch")
    with pytest.raises(ConfigError, match=r"triton.*pip install triton"), backend("gpu"):
        pass


def test_a_broken_numba_warns_once_and_runs_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: object())
    given = importlib.import_module

    def load(name: str, *rest: object) -> object:
        if name == "numba":
            raise SystemError("initialization of _internal failed")
        return given(name)

    monkeypatch.setattr(importlib, "import_module", load)
    with pytest.warns(RuntimeWarning, match="backend 'cpu'.*initialization of _internal.*reinstall") as told:
        assert implementation_of("tap_filter", CPU).__module__.endswith(".torch")
        assert implementation_of("decay_filter", CPU).__module__.endswith(".torch")
    assert len(told) == 1
    with pytest.raises(ConfigError, match="cannot be imported.*SystemError"), backend("cpu"):
        pass


def test_a_plugin_brings_a_chip_for_an_operator_of_the_core(table: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("plugin")
    record = Operator("tap_filter", "mps", "operator:mul")
    module.delaykit_operators = hookimpl(lambda: [record])  # type: ignore[attr-defined]
    loader = PluginLoader([PluginSource("metal", lambda: module)], {})
    monkeypatch.setattr(registry, "loader", lambda: loader)
    table.clear()
    assert implementation_of("tap_filter", torch.device("mps")) is operator.mul
    assert implementation_of("running_sum", torch.device("mps")).__module__.endswith(".torch")
    assert implementation_of("tap_filter", CPU) is not operator.mul


def test_nothing_but_a_judge_answers_for_one(table: dict) -> None:
    table["example_twice", "torch"] = table["example_twice", "cpu"] = operator.mul
    assert implementation_of("example_twice", CPU) is operator.mul
    with (
        backend("reference"),
        pytest.raises(ConfigError, match="operator 'example_twice': found no implementation in 'reference'"),
    ):
        implementation_of("example_twice", CPU)
    table["example_twice", "reference"] = operator.add
    with backend("reference"):
        assert implementation_of("example_twice", CPU) is operator.add
    with backend("reference"), pytest.raises(UnknownNameError, match="example_thrice"):
        implementation_of("example_thrice", CPU)


def test_an_operator_of_a_disabled_plugin_says_so(table: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    source = PluginSource("mine", lambda: types.ModuleType("plugin"))
    loader = PluginLoader([source], {"DELAYKIT_DISABLE": "mine"})
    monkeypatch.setattr(registry, "loader", lambda: loader)
    with pytest.raises(UnknownNameError, match="'mine_filter' of the plugin 'mine'.*disabled by DELAYKIT_DISABLE"):
        implementation_of("mine_filter", CPU)


def test_resolution_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    first = implementation_of("tap_filter", CPU)
    monkeypatch.setattr(registry, "loader", None)  # not asked again
    assert implementation_of("tap_filter", CPU) is first


def test_other_devices_run_torch() -> None:
    assert implementation_of("tap_filter", torch.device("mps")).__module__.endswith(".torch")


def test_blocks_nest_and_end_also_after_an_error() -> None:
    assert chosen() is None
    with backend("torch"):
        with backend("reference"):
            assert chosen() == "reference"
        assert chosen() == "torch"
        with pytest.raises(ZeroDivisionError), backend("reference"):
            _ = 1 / 0
        assert chosen() == "torch"
    assert chosen() is None


def test_the_choice_of_one_thread_is_not_anothers() -> None:
    seen: list[str | None] = []
    with backend("torch"):
        thread = threading.Thread(target=lambda: seen.append(chosen()))
        thread.start()
        thread.join()
    assert seen == [None]


def test_an_unknown_backend_is_refused_before_anything_runs() -> None:
    with pytest.raises(UnknownNameError, match="cuda_graphs.*reference"), backend("cuda_graphs"):
        pass
    with pytest.raises(UnknownNameError):
        register("anything", "tpu")


@pytest.mark.skipif(not HAS_NUMBA, reason="needs Numba to ask for it on a wrong device")
def test_a_backend_on_a_foreign_device_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    with backend("cpu"), pytest.raises(ConfigError, match="cuda"):
        implementation_of("tap_filter", torch.device("cuda"))


def test_triton_on_the_cpu_needs_its_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "_fault", lambda name: "")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with backend("gpu"), pytest.raises(ConfigError, match="TRITON_INTERPRET"):
        implementation_of("tap_filter", CPU)


def test_an_operator_nobody_registered_is_named_with_those_known() -> None:
    with pytest.raises(UnknownNameError, match="time_machine.*tap_filter"):
        implementation_of("time_machine", CPU)


def test_a_plugin_adds_an_operator_and_a_faster_kernel(table: dict) -> None:
    register("plugin_sum", "torch")(portable := lambda x: x.sum())
    assert implementation_of("plugin_sum", CPU) is portable
    with backend("gpu") if importlib.util.find_spec("triton") else backend("torch"):
        assert implementation_of("plugin_sum", torch.device("cuda")) is portable  # no Triton kernel: torch

    @register("plugin_sum", "cpu")
    def fast(x: torch.Tensor) -> torch.Tensor:
        return x.sum()

    assert implementation_of("plugin_sum", CPU) is (fast if HAS_NUMBA else portable)
    register("plugin_sum", "cpu")(fast)  # a module that is imported again
    with pytest.raises(ConfigError, match="fast"):
        register("plugin_sum", "cpu")(lambda x: x)


@pytest.mark.parametrize("name", ["reference", "torch", "cpu"])
def test_the_operator_really_runs_in_the_backend_asked_for(
    name: str, table: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    for other in ("torch", "cpu"):
        kernel = dispatcher._function("synapse_filter", other)
        monkeypatch.setitem(
            table, ("synapse_filter", other), lambda *given, k=kernel, o=other: calls.append(o) or k(*given)
        )
    with backend(name):
        delayed_linear(torch.ones(3, 1, 2), torch.ones(2, 2), Linear().taps(torch.ones(2, 2)))
    assert calls == ([] if name == "reference" else [name])


def test_a_block_entered_later_still_reaches_compiled_code() -> None:
    taps = Linear().taps(torch.full((2, 2), 1.5))
    operator = torch.compile(delayed_linear, backend="eager", fullgraph=True)
    spikes, weight = torch.rand(4, 1, 2), torch.rand(2, 2)
    expected = delayed_linear(spikes, weight, taps)
    for name in ("torch", "cpu", "reference"):
        with backend(name):
            torch.testing.assert_close(operator(spikes, weight, taps), expected)


def test_importing_the_operators_imports_neither_numba_nor_triton() -> None:
    code = (
        "import sys; from delaykit.functional import delayed_linear, filtered_linear, step_tape, recurrence;"
        "from delaykit.functional.delayed_linear import numba;"
        "sys.exit(bool({'numba', 'triton.language'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_errors_are_of_the_one_family() -> None:
    assert issubclass(ConfigError, DelaykitError) and issubclass(UnknownNameError, DelaykitError)
