"""One test class that holds every law of delaykit; a plugin subclasses it in one of its own test files.

>>> from delaykit.testing import ComponentConformance
>>> class TestMine(ComponentConformance):  # doctest: +SKIP
...     config = MyConfig(max_delay=5.0, init=2.5)
...     identity_config = MyConfig(max_delay=5.0, init=0.0)
...     skip = {"compiled_equals_eager": "its operator is a C extension that dynamo cannot trace"}
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

import pytest

from delaykit.errors import ConfigError
from delaykit.interfaces import ComponentConfig
from delaykit.testing.laws_config import ConfigLaws
from delaykit.testing.laws_network import NetworkLaws
from delaykit.testing.laws_operator import OperatorLaws
from delaykit.testing.laws_pruning import PruningLaws
from delaykit.testing.laws_scale import ScaleLaws
from delaykit.testing.laws_training import TrainingLaws
from delaykit.testing.nets.tiny import TinyNet, missing, tiny_nets

SHORTEST_REASON = 10  # characters


class ComponentConformance(ConfigLaws, OperatorLaws, NetworkLaws, TrainingLaws, ScaleLaws, PruningLaws):
    """Run every law on one component config, over the tiny nets of each library.

    Set ``config``; and ``identity_config`` where ``config`` is not the bare model already. Laws of other kinds of
    component are not collected. Tolerances cannot be changed.

    Args:
        config: the component under test.
        identity_config: the same component where it must do nothing.
        libraries: names of the libraries whose nets are used; one that is not installed is skipped, with that reason.
        sites: ``fnmatch`` pattern of the sites to wrap, for a component that does not fit all.
        skip: ``{law: reason}``; a law is a method's name without ``test_``.

    Raises:
        ConfigError: at class definition: ``config`` is missing, an unknown law or a reason too short to be one.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        config = getattr(cls, "config", None)
        if not isinstance(config, ComponentConfig):
            raise ConfigError(
                f"{cls.__name__}.config", repr(config), "a component config", "set config = MyConfig(...)"
            )
        laws = {name.removeprefix("test_"): m for name, m in inspect.getmembers(cls) if hasattr(m, "kinds")}
        _check_skips(cls, list(laws))
        for name, method in laws.items():
            if config.kind not in method.kinds:
                setattr(cls, f"test_{name}", None)  # not collected

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a law once for each net that it speaks of, or for each library; one that is left out is told once."""
        reason = self.skip.get(metafunc.function.__name__.removeprefix("test_"))
        if "tiny" in metafunc.fixturenames:
            nets = [] if reason else self._nets_of(getattr(metafunc.function, "speaks_of", None))
            cases = [pytest.param(net, marks=_needs(net.library), id=net.name) for net in nets]
            reason = reason or f"speaks of no net of {', '.join(self.libraries)} with this component"
            none = pytest.param(None, marks=pytest.mark.skip(reason=reason), id="none")
            metafunc.parametrize("tiny", cases or [none])
        if "library" in metafunc.fixturenames:
            names = self.libraries[:1] if reason else self.libraries
            metafunc.parametrize("library", [pytest.param(name, marks=_needs(name)) for name in names])

    def _nets_of(self, speaks_of: Callable[[TinyNet, Collection[str]], bool] | None) -> list[TinyNet]:
        nets = [(net, self.rules(net, self.config)) for library in self.libraries for net in tiny_nets(library)]
        return [net for net, rules in nets if rules and (speaks_of is None or speaks_of(net, rules))]

    @pytest.fixture(autouse=True)
    def _skip_with_a_reason(self, request: pytest.FixtureRequest) -> None:
        reason = self.skip.get(request.function.__name__.removeprefix("test_"))
        if reason is not None:
            pytest.skip(reason)

    @pytest.fixture
    def skip_law(self) -> Callable[[str], None]:
        """Let a law say why it does not apply to a net."""
        return pytest.skip


def _needs(library: str) -> list[pytest.MarkDecorator]:
    reason = missing(library)
    return [pytest.mark.skip(reason=reason)] if reason else []


def _check_skips(cls: type, laws: list[str]) -> None:
    skips = cls.skip  # type: ignore[attr-defined]
    for name, reason in skips.items():
        if name not in laws:
            fix = "correct the name in skip"
            raise ConfigError(f"{cls.__name__}.skip", f"unknown law {name!r}", f"one of {', '.join(sorted(laws))}", fix)
        if len(reason.strip()) < SHORTEST_REASON:
            found = f"reason {reason!r} for {name!r}"
            raise ConfigError(
                f"{cls.__name__}.skip", found, "a reason that a reader can judge", "say why it cannot hold"
            )
