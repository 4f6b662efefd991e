"""Writes the pages of docs/ that the code already knows: settings, commands, the Python and the REST reference.

``make docs`` runs it; a test fails where a page is stale.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from pydantic_settings import BaseSettings

import timedb
from timedb.cli.main import app
from timedb.client.selection import Selection
from timedb.contract.settings import ClientSettings, ServerSettings, load_settings
from timedb.rest_gateway import create_app

DOCS = Path(__file__).parent
READ_FIRST = "What the words mean is in [the wire contract](wire.md)."
NOTE = "<!-- Written by `make docs`; edit the code instead. -->\n"


def settings_page() -> str:
    """docs/settings.md."""
    head = (
        "# Settings\n\nEach is an environment variable; where a command has an option for it, the option wins. "
        "A value that does not fit is an error that names the variable.\n"
    )
    server = "A server process:\n\n" + settings_table(ServerSettings)
    client = "A client (a gateway and `timedb serve` never read the key):\n\n" + settings_table(ClientSettings)
    return "\n".join([NOTE + head, server, client])


def settings_table(settings: type[BaseSettings]) -> str:
    """A table of one class of settings."""
    rows = ["| variable | default | |", "|---|---|---|"]
    for name, field in settings.model_fields.items():
        default = "" if field.default is None else f"`{field.default}`"
        rows.append(f"| `TIMEDB_{name.upper()}` | {default} | {field.description} |")
    return "\n".join(rows) + "\n"


def cli_page() -> str:
    """docs/cli.md: what the commands and their options say of themselves."""
    group = typer.main.get_command(app)
    sections = [f"{NOTE}# The command line\n\n{inspect.cleandoc(group.help or '')}\n"]
    sections += [command_section(name, command) for name, command in commands_of(group)]
    return "\n".join(sections)


def commands_of(group: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every command of a group with its full name, those of its groups after each of them."""
    for name, command in getattr(group, "commands", {}).items():
        yield prefix + name, command
        yield from commands_of(command, f"{prefix}{name} ")


def command_section(name: str, command: Any) -> str:
    """One command: its usage, what it does, its options."""
    options = [each for each in command.params if each.param_type_name == "option"]
    arguments = [(each.metavar or each.name).upper() for each in command.params if each not in options]
    text = f"## timedb {name}\n\n`timedb {' '.join([name, *arguments, *(['[OPTIONS]'] if options else [])])}`\n"
    text += f"\n{inspect.cleandoc(command.help or '')}\n"
    if example := (command.epilog or "").removeprefix("Example: "):
        text += f"\nExample: `{example}`\n"
    rows = [f"| `{', '.join([*each.opts, *each.secondary_opts])}` | {each.help or ''} |" for each in options]
    return text + ("\n| option | |\n|---|---|\n" + "\n".join(rows) + "\n" if rows else "")


def python_page() -> str:
    """docs/python.md: what ``import timedb as td`` gives, as its docstrings say it."""
    named = {name: getattr(timedb, name) for name in timedb.__all__}
    functions = {f"td.{name}": each for name, each in named.items() if inspect.isfunction(each)}
    classes = [each for each in named.values() if inspect.isclass(each)]
    errors = [each for each in classes if issubclass(each, timedb.TimeDBError)]
    sections = [f"{NOTE}# The Python client\n\n`import timedb as td` gives all of it. {READ_FIRST}\n"]
    sections += [callable_section(name, each) for name, each in functions.items()]
    for kind in classes:
        if kind not in errors:
            sections.append(f"## td.{kind.__name__}\n\n{prose(kind)}\n")
            sections += [callable_section(f"{kind.__name__}.{name}", each) for name, each in methods_of(kind)]
    sections.append(typed_section("What a read selects", Selection))
    rows = [
        f"| `td.{each.__name__}` | `{each.code}` | {each.summary} |" for each in errors if each.__subclasses__() == []
    ]
    sections.append(
        "## Errors\n\nAll are `td.TimeDBError`.\n\n| class | code | |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    )
    return "\n".join(sections)


def methods_of(kind: type) -> Iterator[tuple[str, Any]]:
    """The public methods of a class, in the order of its source, and then those that it has from a part of it."""
    own = {name: each for part in reversed(kind.__mro__[:-1]) for name, each in vars(part).items()}
    ordered = {name: own[name] for part in kind.__mro__[:-1] for name in vars(part)}
    for name, each in ordered.items():
        function = each.__func__ if isinstance(each, classmethod) else each
        if not name.startswith("_") and inspect.isfunction(function):
            yield name, function


def callable_section(name: str, function: Any) -> str:
    """A function or method: its signature, as written, and its docstring."""
    shown = str(inspect.signature(function)).replace("self, ", "").replace("(self)", "()").replace("'", "")
    return f"### {name}\n\n```text\n{name.rpartition('.')[2]}{shown}\n```\n\n{prose(function)}\n"


def typed_section(title: str, kind: Any) -> str:
    """The keyword arguments that a TypedDict describes."""
    rows = [
        "| `{}` | `{}` |".format(name, str(getattr(each, "__forward_arg__", each)).replace("|", "\\|"))
        for name, each in kind.__annotations__.items()
    ]
    return f"## {title}\n\n{prose(kind)}\n\n| argument | type |\n|---|---|\n" + "\n".join(rows) + "\n"


def prose(documented: Any) -> str:
    """A docstring as Markdown: its sections as lists."""
    text = inspect.cleandoc(documented.__doc__ or "").replace("``", "`")
    text = re.sub(r":(?:class|meth|func):`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    lines, item = [], False
    for line in text.split("\n"):
        if re.fullmatch(r"(Args|Returns|Raises|Attributes|Yields):", line):
            lines += [f"**{line[:-1]}**", ""]
            item = line[:-1] in ("Args", "Raises", "Attributes")
        elif re.match(r"    \S", line) and item:
            lines.append("- " + re.sub(r"^\s+(\**\w+):", r"`\1`:", line).strip())
        else:
            lines.append(line.strip() if not item or not line else "  " + line.strip())
    return "\n".join(lines).strip()


def rest_page() -> str:
    """docs/rest.md: the calls of the gateway, as its OpenAPI document describes them."""
    document = create_app("grpc://127.0.0.1:8815", load_settings(ServerSettings)).openapi()
    head = f"{NOTE}# The REST calls\n\n{document['info']['description']}\n\n"
    head += f"To try them: `/docs` of a running service. {READ_FIRST}\n"
    calls = [(verb, path, call) for path, verbs in document["paths"].items() for verb, call in verbs.items()]
    return "\n".join([head, *(rest_section(*each) for each in calls)])


def rest_section(verb: str, path: str, call: dict[str, Any]) -> str:
    """One call: what it does, its parameters, the types of its body and answers."""
    text = f"## {verb.upper()} {path}\n\n{call['summary']}.\n\n{call.get('description', '')}\n"
    parameters = [each for each in call.get("parameters", ()) if each["in"] == "query"]
    if parameters:
        rows = [f"| `{each['name']}` | {cell(each)} |" for each in parameters]
        text += "\n| query | |\n|---|---|\n" + "\n".join(rows) + "\n"
    if "requestBody" in call:
        text += f"\nBody: {kinds(call['requestBody']['content'])}\n"
    answers, failures = call["responses"]["200"].get("content", {}), sorted(set(call["responses"]) - {"200"})
    return f"{text}\nAnswer: {kinds(answers)}; errors {', '.join(failures)}\n"


def cell(parameter: dict[str, Any]) -> str:
    """What a parameter is for, and which words it takes."""
    schema = parameter["schema"]
    words = schema.get("enum") or [schema["const"]] if "const" in schema or "enum" in schema else []
    listed = ", ".join(f"`{word}`" for word in words)
    said = parameter.get("description") or schema.get("description", "")
    return ": ".join(part for part in (str(said), listed) if part)


def kinds(content: dict[str, Any]) -> str:
    """Media types, those of JSON with the name of what they hold."""
    named = ((kind, each.get("schema", {}).get("$ref", "").rpartition("/")[2]) for kind, each in content.items())
    return ", ".join(f"`{kind}`" + (f" ({model})" if model else "") for kind, model in named)


def pages() -> dict[Path, str]:
    """Every generated page with its text."""
    made = {"settings": settings_page, "cli": cli_page, "python": python_page, "rest": rest_page}
    return {DOCS / f"{name}.md": make() for name, make in made.items()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path.relative_to(DOCS.parent))
