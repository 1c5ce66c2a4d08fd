"""The package: lazy imports, an adapter found by its hook, a README that runs and tells what was measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import delaykit_spikingjelly
from delaykit.testing import check_readme

README = Path(__file__).parents[1] / "README.md"


def test_importing_the_package_and_its_entry_point_loads_neither_torch_nor_spikingjelly() -> None:
    heavy = "{'torch', 'spikingjelly'}"
    code = f"import sys, delaykit_spikingjelly, delaykit_spikingjelly.plugin; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.slow
def test_spikingjelly_is_imported_without_torchvision() -> None:
    code = (
        "import sys; sys.modules['torchvision'] = None\n"
        "from spikingjelly.activation_based import functional, layer, neuron, surrogate\n"
        "import delaykit_spikingjelly as d; d.SpikingJellyAdapter"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_every_public_name_is_the_object_of_that_name() -> None:
    for name in delaykit_spikingjelly.__all__:
        assert not isinstance(getattr(delaykit_spikingjelly, name), type(sys)), f"{name} is a module"


def test_the_adapter_is_registered() -> None:
    from delaykit.plugins import registry

    assert registry.resolve("adapter", "spikingjelly") is delaykit_spikingjelly.SpikingJellyAdapter


def test_the_readme_keeps_its_word(tmp_path: Path) -> None:
    check_readme(README, tmp_path)


def test_the_readme_names_every_node() -> None:
    known = (*delaykit_spikingjelly.ADDITIVE, *delaykit_spikingjelly.REFUSED)
    text = README.read_text(encoding="utf-8")
    families = {"ILC", "Noisy"}
    missing = [n for n in known if n.removesuffix("Node") not in text and not any(f in n for f in families)]
    assert not missing
