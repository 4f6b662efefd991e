"""What the site needs of the plugins that make its reference: the commands as Markdown, docstrings without roles."""

from __future__ import annotations

import re
from typing import Any

import griffe
import typer
from typer.cli import get_docs_for_click

from timedb.cli import app

__all__ = ["PlainRoles", "on_page_markdown"]

_ROLE = re.compile(r":(?:class|meth|func|data):`~?(?:[\w.]*\.)?(\w+)`")


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Called by mkdocs for each page: the one on commands gets what typer says of them."""
    if page.file.src_uri != "cli.md":
        return markdown
    command: Any = typer.main.get_command(app)
    said = get_docs_for_click(obj=command, ctx=typer.Context(command), name="timedb")
    return f"{markdown}\n{said.replace('# `timedb`', '', 1)}"


class PlainRoles(griffe.Extension):
    """Makes ``:meth:`read``` and the like plain code, as docstrings are Markdown here."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for everything that it finds."""
        if obj.docstring is not None:
            obj.docstring.value = _ROLE.sub(r"`\1`", obj.docstring.value)
