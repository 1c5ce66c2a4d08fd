"""One test class that holds every law of an adapter; a library's plugin subclasses it in one of its own test files.

>>> from delaykit.testing import AdapterConformance
>>> class TestMine(AdapterConformance):  # doctest: +SKIP
...     adapter = MyAdapter
...     nets = (MyNet(), AnotherNet())
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest

from delaykit.attaching.adapter import NeuronAdapter
from delaykit.errors import ConfigError
from delaykit.planning.survey import adapter_on_trial
from delaykit.testing.adapters.laws_delays import DelayLaws
from delaykit.testing.adapters.laws_neurons import NeuronLaws
from delaykit.testing.adapters.laws_wrapping import WrappingLaws
from delaykit.testing.adapters.library_net import LibraryNet

SHORTEST_REASON = 10  # characters


class AdapterConformance(WrappingLaws, DelayLaws, NeuronLaws):
    """Run every law on one adapter, over small networks of its library.

    Args:
        adapter: the class under test; it need not be registered.
        nets: networks in the shapes that users of the library write: at least one for each kind of neuron.
        skip: ``{law: reason}``; a law is a method's name without ``test_``.

    Raises:
        ConfigError: at class definition: ``adapter`` or ``nets`` is missing, an unknown law, or a reason too short.
    """

    skip: ClassVar[dict[str, str]] = {}

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        found = getattr(cls, "adapter", None)
        if not (isinstance(found, type) and issubclass(found, NeuronAdapter)):
            raise ConfigError(f"{cls.__name__}.adapter", repr(found), "a NeuronAdapter", "set adapter = MyAdapter")
        nets = getattr(cls, "nets", ())
        if not nets or not all(isinstance(net, LibraryNet) for net in nets):
            raise ConfigError(f"{cls.__name__}.nets", repr(nets), "LibraryNets", "set nets = (MyNet(),)")
        laws = [name.removeprefix("test_") for name in dir(cls) if name.startswith("test_")]
        for law, reason in cls.skip.items():
            if law not in laws:
                fix = "correct the name in skip"
                raise ConfigError(f"{cls.__name__}.skip", f"unknown law {law!r}", f"one of {', '.join(laws)}", fix)
            if len(reason.strip()) < SHORTEST_REASON:
                expected = "a reason that a reader can judge"
                raise ConfigError(f"{cls.__name__}.skip", f"reason {reason!r} for {law!r}", expected, "say why")

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a law once for each net."""
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", [pytest.param(net, id=net.name) for net in self.nets])

    @pytest.fixture(autouse=True)
    def _on_trial(self, request: pytest.FixtureRequest) -> Iterator[None]:
        reason = self.skip.get(request.function.__name__.removeprefix("test_"))
        if reason is not None:
            pytest.skip(reason)
        with adapter_on_trial(self.adapter):
            yield
