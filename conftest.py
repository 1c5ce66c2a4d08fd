"""Every test starts from the same random state, on one thread: a red test is red again when it runs alone."""

from __future__ import annotations

import gc
import heapq
import importlib
import itertools
import os
import random
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from _pytest.doctest import DoctestModule

# One component shows all laws on all nets in the fast set, but for those that take ten seconds a net. The others show
# each of theirs on one net, by turns of component and law, so that each component meets most nets, and each law all of
# them. `make slow` shows each on one net of each library, by the same turns, and on all nets where a law may pass over
# one. The rest runs with DELAYKIT_FAULTS=full.
LONG_LAWS = ("test_compiled_equals_eager", "test_compiled_sequences_equal_eager", "test_two_processes_equal_one")
SHOWN_BY = "TestAxonalLinear"
EVERYTHING = os.environ.get("DELAYKIT_FAULTS") == "full"  # also what is shown twice, as all faults of testing.faults
LONG_EXAMPLES = "delaykit/testing/faults/streams.py"  # which tests of every component run anyway
LONG_ADAPTER_LAW = "test_delays_are_shifts"  # seconds a net: every other net of an adapter shows it in the fast set


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path: Path) -> Generator[None, list[pytest.Collector], list[pytest.Collector]]:
    """Look for examples where there are some: tests have none, and are as many files again."""
    found = yield
    return [one for one in found if not (isinstance(one, DoctestModule) and "tests" in file_path.parts)]


@pytest.hookimpl(wrapper=True, tryfirst=True)  # around pytest, which takes out what `-m` leaves out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Generator[None, object, object]:
    """Mark what is slow; let workers begin with the longest files, so that none has one left when the others end."""
    long = {item for item in items if item.get_closest_marker("slow") and "tiny" not in params_of(item)}
    for item in items:
        if item.nodeid.startswith(LONG_EXAMPLES):
            item.add_marker(pytest.mark.slow)
    mark_what_is_shown_elsewhere(config, items)
    mark_what_pairs_leave(items)
    found = yield
    if hasattr(config, "workerinput"):
        tenths: Counter[Path] = Counter()  # of seconds, as a rule
        for item in items:
            tenths[item.path] += 100 if item in long else 1
        items.sort(key=lambda item: (-tenths[item.path], item.path))  # files stay together, and in order
    return found


def mark_what_is_shown_elsewhere(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark as slow what another component, or another net, shows in the fast set; leave out what both show."""
    seen: dict[tuple[type, str], dict[str, list[str]]] = {}  # by class and law: libraries, and nets of each in order
    laws = [item for item in items if isinstance(item, pytest.Function) and item.cls is not None]
    here = [item for item in laws if params_of(item).get("tiny") and not item.get_closest_marker("skip")]
    on_nets = [(item, params_of(item)["tiny"]) for item in here]
    for item, net in on_nets:
        nets = seen.setdefault((item.cls, item.originalname), {}).setdefault(net.library, [])
        nets += [] if net.name in nets else [net.name]
    left_out: list[pytest.Item] = []
    for item, net in on_nets:
        libraries = seen[item.cls, item.originalname]
        turn, nets = zlib.crc32(f"{item.cls.__name__} {item.originalname}".encode()), libraries[net.library]
        slow = item.get_closest_marker("slow") is not None
        shown = net.name == nets[turn % len(nets)]
        fast = shown and net.library == [*libraries][turn // 64 % len(libraries)]
        if item.originalname in LONG_LAWS:
            left_out += [item] if not shown else []
        elif item.cls.__name__ != SHOWN_BY and not (shown if slow else fast):
            item.add_marker(pytest.mark.slow)
            left_out += [item] if not shown and not picks_nets(item) else []
    for item in laws:
        if item.originalname == LONG_ADAPTER_LAW and item.cls.nets.index(params_of(item)["case"]) % 2:
            item.add_marker(pytest.mark.slow)
        if item.originalname in LONG_LAWS:
            item.add_marker(pytest.mark.slow)
    if left_out and not EVERYTHING:
        gone = set(map(id, left_out))
        items[:] = [item for item in items if id(item) not in gone]
        config.hook.pytest_deselected(items=left_out)


def mark_what_pairs_leave(items: list[pytest.Item]) -> None:
    """Mark as slow, of a test with three lists of parameters or more, what shows no two values together anew."""
    tests: dict[object, list[pytest.Function]] = {}
    for item in items:
        if isinstance(item, pytest.Function) and params_of(item) and not item.get_closest_marker("slow"):
            tests.setdefault((item.path, item.cls, item.originalname), []).append(item)
    for cases in tests.values():
        values = [item.callspec._idlist for item in cases]  # an id for each list
        if min(map(len, values)) > 2:
            chosen = pairwise(values)
            for item in [item for k, item in enumerate(cases) if k not in chosen]:
                item.add_marker(pytest.mark.slow)


def pairwise(cases: Sequence[Sequence[object]]) -> set[int]:
    """Choose a few cases, by number, in which every two values meet that meet in any."""
    pairs = [set(itertools.combinations(enumerate(case), 2)) for case in cases]
    missing = set().union(*pairs)
    most = [(-len(of_one), k) for k, of_one in enumerate(pairs)]  # that a case may still add
    chosen: set[int] = set()
    while missing:
        promised, k = heapq.heappop(most)
        adds = len(pairs[k] & missing)
        if adds == -promised:
            chosen.add(k)
            missing -= pairs[k]
        elif adds:
            heapq.heappush(most, (-adds, k))
    return chosen


def picks_nets(law: pytest.Function) -> bool:
    """Tell whether a law holds for some nets only."""
    return "skip_law" in law.fixturenames or getattr(law.function, "speaks_of", None) is not None


def params_of(item: pytest.Function) -> dict[str, object]:
    """Return what a test is parametrised with."""
    return item.callspec.params if hasattr(item, "callspec") else {}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Let the garbage collector look past what lives to the end: ten thousand tests, and all modules."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.collect()
        gc.freeze()


def pytest_sessionfinish() -> None:
    """Let it have all again: libraries in C complain of what is never freed."""
    gc.unfreeze()


@pytest.fixture
def young_heap() -> None:
    """Let the garbage collector look past what earlier tests left, where a test counts all that lives."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Keep xdist workers from fighting for cores, and sums in one order."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def numpy_seeded_with_0() -> dict[str, Any]:
    """The state of numpy's generator, which is set faster than it is seeded."""
    import numpy as np

    return np.random.RandomState(0).get_state(legacy=False)


@pytest.fixture(autouse=True)
def seeded(numpy_seeded_with_0: dict[str, Any]) -> None:
    """Seed every generator a test may draw from."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.set_state(numpy_seeded_with_0)
    if torch.cuda.is_initialized():
        torch.manual_seed(0)
    else:  # which writes the whole stack down for each device that may once be used
        torch.default_generator.manual_seed(0)


@pytest.fixture
def script(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Import scripts of a plugin's ``reproduce`` folder for one test; other plugins have modules of the same names."""
    folder = request.path.parents[1] / "reproduce"
    names = {path.stem for path in folder.iterdir()}

    def forget() -> None:
        for name in [name for name in sys.modules if name.partition(".")[0] in names]:
            del sys.modules[name]

    monkeypatch.syspath_prepend(str(folder))
    forget()
    yield importlib.import_module
    forget()


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a train and a test file in SHD's layout: two classes, low units or high ones."""
    import numpy as np

    h5py = pytest.importorskip("h5py", reason="writes recordings as SHD keeps them")
    folder, generator = tmp_path_factory.mktemp("recordings"), np.random.default_rng(0)
    for part, count in (("train", 20), ("test", 8)):
        with h5py.File(folder / f"tiny_{part}.h5", "w") as file:
            labels = np.arange(count) % 2
            times = file.create_dataset("spikes/times", (count,), h5py.vlen_dtype("float16"))
            units = file.create_dataset("spikes/units", (count,), h5py.vlen_dtype("uint16"))
            for k, label in enumerate(labels):
                times[k] = np.sort(generator.random(200)).astype("float16")
                units[k] = (generator.integers(0, 350, 200) + 350 * label).astype("uint16")
            file["labels"] = labels.astype("uint16")
    return folder
