"""Names of Python and PyTorch in signatures as links to their documentation, without asking for an inventory.

A build needs no network: the few names that stand in signatures are listed here with their pages, and written as the
inventories that intersphinx reads. With ``DELAYKIT_DOCS_ONLINE`` set it fetches the projects' own, with every name.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path

ABC = "library/collections.abc.html#collections.abc."
BUILT_IN = "library/functions.html#"
TYPES = "library/stdtypes.html#"
PYTHON = {
    **{name: f"{BUILT_IN}{name}" for name in ("bool", "float", "int", "object", "complex")},
    **{name: f"{TYPES}{name}" for name in ("bytes", "dict", "frozenset", "list", "range", "set", "str", "tuple")},
    **{name: f"{ABC}{name}" for name in ("Callable", "Iterable", "Iterator", "Mapping", "Sequence")},
    "None": "library/constants.html#None",
    "Any": "library/typing.html#typing.Any",
    "Literal": "library/typing.html#typing.Literal",
    "NamedTuple": "library/typing.html#typing.NamedTuple",
    "Path": "library/pathlib.html#pathlib.Path",
    "ABC": "library/abc.html#abc.ABC",
}
HOMES = {"Any": "typing", "Literal": "typing", "NamedTuple": "typing", "Path": "pathlib", "ABC": "abc"}
HOMES |= {name: "collections.abc" for name in ("Callable", "Iterable", "Iterator", "Mapping", "Sequence")}
TORCH = {
    "torch.Tensor": "tensors.html#torch.Tensor",
    "torch.Generator": "generated/torch.Generator.html#torch.Generator",
    "torch.device": "tensor_attributes.html#torch.device",
    "torch.dtype": "tensor_attributes.html#torch.dtype",
    "torch.nn.Module": "generated/torch.nn.Module.html#torch.nn.Module",
    "torch.nn.Parameter": "generated/torch.nn.parameter.Parameter.html#torch.nn.parameter.Parameter",
    "torch.optim.Optimizer": "optim.html#torch.optim.Optimizer",
}
TORCH |= {  # where classes are defined, as autodoc names them
    "torch._C.Generator": TORCH["torch.Generator"],
    "torch.nn.modules.module.Module": TORCH["torch.nn.Module"],
    "torch.nn.parameter.Parameter": TORCH["torch.nn.Parameter"],
    "torch.optim.optimizer.Optimizer": TORCH["torch.optim.Optimizer"],
}
SITES = {"python": "https://docs.python.org/3", "torch": "https://docs.pytorch.org/docs/stable"}


def listed() -> dict[str, dict[str, str]]:
    """Return each site's names, as they are written in full and in signatures, and their pages."""
    python = PYTHON | {f"{home}.{name}": PYTHON[name] for name, home in HOMES.items()}
    short = {name.rpartition(".")[2]: page for name, page in TORCH.items()}
    halves = {name.removeprefix("torch."): page for name, page in TORCH.items() if name.count(".") == 2}
    return {"python": python, "torch": TORCH | short | halves}


def mapping(folder: Path) -> dict[str, tuple[str, str | None]]:
    """Write the inventories into ``folder``; return intersphinx's mapping."""
    if os.environ.get("DELAYKIT_DOCS_ONLINE"):
        sites = SITES | {"snntorch": "https://snntorch.readthedocs.io/en/latest"}
        return {name: (site, None) for name, site in sites.items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name, pages in listed().items():
        head = f"# Sphinx inventory version 2\n# Project: {name}\n# Version: \n"
        head += "# The remainder of this file is compressed using zlib.\n"
        lines = "".join(f"{known} py:class 1 {page} -\n" for known, page in sorted(pages.items()))
        (folder / f"{name}.inv").write_bytes(head.encode() + zlib.compress(lines.encode()))
    return {name: (site, str(folder / f"{name}.inv")) for name, site in SITES.items()}
