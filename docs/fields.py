"""How components are called, for the site: with their fields, where autodoc would show a ``__new__`` that takes all."""

from __future__ import annotations

from typing import Any

from sphinx.util.inspect import signature, stringify_signature

from delaykit.interfaces import ComponentConfig


def show(app: Any, what: str, name: str, item: Any, *rest: Any) -> tuple[str, None] | None:
    """Answer autodoc's ``autodoc-process-signature``."""
    if what != "class" or not issubclass(item, ComponentConfig):
        return None
    fields = signature(item.__init__, bound_method=True)
    return stringify_signature(fields, show_return_annotation=False, unqualified_typehints=True), None
