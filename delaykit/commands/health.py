"""What ``delaykit doctor`` looks at: packages the core needs, extras, backends, plugins; each with what to install."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterator

import delaykit
from delaykit.errors import PluginError
from delaykit.loader import PluginLoader

REQUIRED = ("torch", "numpy", "pluggy", "safetensors")
# extra -> (module, what it is for)
EXTRAS = {
    "snntorch": ("snntorch", "wrapping snnTorch models"),
    "norse": ("norse", "wrapping Norse models"),
    "fast": ("numba", "compiled CPU operators"),
    "plot": ("matplotlib", "pictures"),
    "nir": ("nir", "networks with delays as NIR graphs: dk.to_nir, dk.from_nir"),
    "cli": ("tqdm", "progress bars"),
}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table; ``needed`` tells a broken part from an absent extra."""

    what: str
    ok: bool
    detail: str
    needed: bool = False


def required() -> Iterator[Row]:
    """Yield a row for Python, delaykit, each required package and the device torch sees."""
    yield Row("python", True, platform.python_version(), True)
    yield Row("delaykit", True, delaykit.__version__, True)
    for name in REQUIRED:
        try:
            importlib.import_module(name)
        except Exception as error:
            yield Row(name, False, f"{type(error).__name__}: {error}; pip install {name}", True)
        else:
            yield Row(name, True, importlib.metadata.version(name), True)
            if name == "torch":
                yield _accelerator()


def optional() -> Iterator[Row]:
    """Yield a row for each extra, with the command that installs it."""
    for extra, (module, purpose) in EXTRAS.items():
        what = f"{extra} ({purpose})"
        if importlib.util.find_spec(module) is None:
            yield Row(what, False, f"pip install 'delaykit[{extra}]'")
            continue
        try:
            importlib.import_module(module)
        except Exception as error:  # installed and broken: what needs it does without
            fix = f"pip install --force-reinstall 'delaykit[{extra}]'"
            yield Row(what, False, f"{module} cannot be imported ({type(error).__name__}: {error}); {fix}")
        else:
            yield Row(what, True, f"{module} {importlib.metadata.version(module)}")


def plugins(loader: PluginLoader) -> Iterator[Row]:
    """Yield a row for each plugin and for each thing it reports through ``delaykit_health``."""
    reported: list[Row] = []
    for name in loader.implementing("delaykit_health"):
        with loader.isolated(name):
            reported += [_reported(name, row) for row in loader.call(name, "delaykit_health")]
    for status in loader.statuses:
        detail = status.detail or f"{len(status.components)} component(s)"
        yield Row(f"plugin {status.name}", status.state == "ok", detail, status.state == "broken")
    yield from reported


def _reported(name: str, row: object) -> Row:
    if isinstance(row, tuple) and [type(value) for value in row] == [str, bool, str]:
        return Row(*row)
    fix = 'yield ("data folder", True, "found")'
    raise PluginError(f"plugin {name!r}", f"{row!r} from delaykit_health", "tuples (what, is it fine, detail)", fix)


def _accelerator() -> Row:
    import torch

    if not torch.cuda.is_available():
        return Row("GPU (Triton operators)", False, "no CUDA device seen by torch; the CPU is used")
    triton = importlib.util.find_spec("triton") is not None
    return Row(
        "GPU (Triton operators)", triton, torch.cuda.get_device_name() + ("" if triton else "; pip install triton")
    )
