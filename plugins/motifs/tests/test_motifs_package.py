"""The package: lazy imports, and a README that runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import delaykit_motifs

README = Path(__file__).parents[1] / "README.md"


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


@pytest.mark.parametrize("block", README.read_text(encoding="utf-8").split("```python\n")[1:])
def test_the_readme_runs(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    exec(block.partition("```")[0], {})
    said = capsys.readouterr().out
    assert said == ("1.0\n" if "print" in block else "")
    for file in tmp_path.iterdir():
        assert 1e6 < file.stat().st_size < 3e6
