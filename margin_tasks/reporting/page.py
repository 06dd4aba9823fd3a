"""The Jinja environment of all documents: everything is escaped, and an unknown name is an error."""

from __future__ import annotations

from functools import cache
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

_PACKAGE = "margin_tasks.reporting"
_FOLDER = "templates"


def render_template(name: str, /, **values: object) -> str:
    """The named template with the values; HTML is escaped, plain text (``.txt``) is not."""
    return _environment().get_template(name).render(**values)


def template_bytes(name: str) -> bytes:
    """A template that another engine reads, as it lies in the package."""
    return resources.files(_PACKAGE).joinpath(_FOLDER, name).read_bytes()


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader(_PACKAGE, _FOLDER),
        autoescape=select_autoescape(enabled_extensions=("html",), disabled_extensions=("txt",), default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
