"""The package: lazy imports, and a README that runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import delaykit_motifs
from delaykit.testing import check_readme


def test_importing_the_package_and_its_entry_point_loads_no_torch() -> None:
    heavy = "{'torch', 'numba', 'matplotlib'}"
    code = f"import sys, delaykit_motifs, delaykit_motifs.plugin; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_every_public_name_is_the_object_of_that_name() -> None:
    for name in delaykit_motifs.__all__:
        assert not isinstance(getattr(delaykit_motifs, name), type(sys)), f"{name} is a module"


def test_the_component_is_registered() -> None:
    from delaykit.plugins import registry

    assert registry.resolve("delay", "motif") is delaykit_motifs.Motif


def test_the_readme_keeps_its_word(tmp_path: Path) -> None:
    first, _ = check_readme(Path(__file__).parents[1] / "README.md", tmp_path)
    assert first.output == "1.0\n"
    (file,) = tmp_path.iterdir()
    assert 1e6 < file.stat().st_size < 3e6
