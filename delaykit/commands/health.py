"""What ``delaykit doctor`` looks at: packages the core needs, extras, backends, plugins; each with what to install."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import platform
from collections.abc import Iterator, Sequence

import delaykit
from delaykit.errors import PluginError
from delaykit.plugins.loader import PluginLoader

REQUIRED = ("torch", "numpy", "pluggy", "safetensors")
# extra -> (modules, what it is for)
EXTRAS = {
    "snntorch": (("snntorch",), "wrapping snnTorch models"),
    "norse": (("norse",), "wrapping Norse models"),
    "fast": (("numba",), "compiled CPU operators"),
    "plot": (("matplotlib",), "pictures"),
    "nir": (("nir", "nirtorch"), "networks with delays as NIR graphs: dk.to_nir, dk.from_nir"),
    "cli": (("click", "rich", "tqdm"), "the command line: plugins, new, demo; progress bars"),
}
# Not ours, but what other libraries need of torch's own family; a version that does not fit torch breaks them.
FAMILY = ("torchvision", "torchaudio")
VECTORS = "delaykit.functional.llvm"  # kernels that may be deleted


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table; what is ``needed``, or is there and ``broken``, is told from an absent extra."""

    what: str
    ok: bool
    detail: str
    needed: bool = False
    broken: bool = False


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
    """Yield a row for each extra, with the command that installs it, and for torch's family where it is installed."""
    for extra, (modules, purpose) in EXTRAS.items():
        yield _tried(f"{extra} ({purpose})", modules, f"'delaykit[{extra}]'")
    yield Row("fast (kernels in vector registers)", *_vectors())
    for module in FAMILY:
        if importlib.util.find_spec(module) is not None:
            yield _tried(f"{module} (other libraries import it)", (module,), f"{module}, in the version for this torch")


def _tried(what: str, modules: Sequence[str], package: str) -> Row:
    """Import modules; what is not there, and what is there and broken, is told apart."""
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    if absent:
        return Row(what, False, f"no {', '.join(absent)}: pip install {package}")
    for module in modules:
        try:
            importlib.import_module(module)
        except Exception as error:  # installed and broken: what needs it does without
            fix = f"pip install --force-reinstall {package}"
            found = f"{module} cannot be imported ({type(error).__name__}: {error}); {fix}"
            return Row(what, False, found, broken=True)
    return Row(what, True, ", ".join(f"{module} {_version(module)}" for module in modules))


def _vectors() -> tuple[bool, str]:
    try:
        importlib.import_module(f"{VECTORS}.registers")
    except ImportError:
        return False, f"no {VECTORS}: same results, slower; pip install --force-reinstall delaykit"
    return True, VECTORS


def _version(module: str) -> str:
    try:
        return importlib.metadata.version(module)
    except importlib.metadata.PackageNotFoundError:
        return "(version unknown)"


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
