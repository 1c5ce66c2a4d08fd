"""Write a new plugin distribution from the template that ships with the package."""

from __future__ import annotations

import datetime
import keyword
import re
from collections.abc import Collection
from pathlib import Path
from string import Template

from delaykit import __version__
from delaykit.errors import ConfigError
from delaykit.plugins.records import API_VERSION

TEMPLATE = Path(__file__).parent / "_template"
SUFFIX = ".template"


def create(name: str, directory: Path, taken: Collection[str] = ()) -> Path:
    """Write the folder ``delaykit-NAME`` with a working plugin: one learned delay, its tests and its packaging.

    Args:
        name: the plugin's name, lower case letters, digits and underscores, e.g. ``my_delay``.
        directory: folder to make it in; created if it is not there.
        taken: names that installed plugins and components have already.

    Returns:
        The new folder.

    Raises:
        ConfigError: if the name is not valid or taken, or if the folder exists or cannot be written.

    Example:
        >>> create("no good", Path("."))
        Traceback (most recent call last):
            ...
        delaykit.errors.ConfigError: delaykit new: found name ...no good...; expected lower case letters, ...
    """
    _check_name(name, taken)
    folder = directory / f"delaykit-{name.replace('_', '-')}"
    if folder.exists():
        raise ConfigError(
            "delaykit new", f"{folder} already there", "a new folder", "choose another name or --directory"
        )
    major, minor = __version__.split(".")[:2]
    words = {
        "name": name,
        "package": f"delaykit_{name}",
        "distribution": folder.name,
        "config": "".join(part.capitalize() for part in name.split("_")),
        "version": __version__,
        "minor": f"{major}.{minor}",
        "next_minor": f"{major}.{int(minor) + 1}",
        "api": str(API_VERSION),
        "year": str(datetime.date.today().year),
    }
    try:
        for source in sorted(TEMPLATE.rglob(f"*{SUFFIX}")):
            relative = source.relative_to(TEMPLATE).as_posix().removesuffix(SUFFIX)
            target = folder / relative.replace("delaykit_NAME", words["package"])
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(Template(source.read_text(encoding="utf-8")).substitute(words), encoding="utf-8")
    except OSError as problem:
        found = f"a place that cannot be written ({problem})"
        raise ConfigError("delaykit new", found, "a writable folder", "choose another --directory") from problem
    return folder


def _check_name(name: str, taken: Collection[str]) -> None:
    if not re.fullmatch(r"[a-z](_?[a-z0-9])*", name) or keyword.iskeyword(name):
        expected = "lower case letters, digits and single underscores, a letter first, no Python keyword"
        suggestion = re.sub(r"[^a-z0-9]+", "_", name.lower().removeprefix("delaykit")).strip("_0123456789")
        fix = f"try {suggestion!r}" if suggestion and suggestion != name else "choose another name"
        raise ConfigError("delaykit new", f"name {name!r}", expected, fix)
    if name in taken:
        raise ConfigError("delaykit new", f"name {name!r}, which a plugin has already", "a new name", "choose another")
