"""Writes the pages of docs/ that the code already knows and no library writes: settings and the REST calls.

``make docs`` runs it; a test fails where a page is stale.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic_settings import BaseSettings

from timedb.contract.settings import ClientSettings, ServerSettings, load_settings
from timedb.layouts.options import FILE_OPTIONS, RUN_OPTIONS
from timedb.rest_gateway import create_app

DOCS = Path(__file__).parent
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


def file_options_page() -> str:
    """docs/file-options.md: the options of a file, as every door reads them."""
    head = f"{NOTE}# The options of a file\n\nOf `timedb upload` and `timedb watch`, recipes (TOML), "
    head += "`client.upload_file`, and bodies of `POST /runs`. Recipes, Python and REST write them with `_` for `-`. "
    head += "How they go together: [Files as people have them](how-to/files.md).\n\n"
    rows = ["| option | | example | REST |", "|---|---|---|---|"]
    for each in (*FILE_OPTIONS, *RUN_OPTIONS):
        help = each.help.replace("|", "\\|")
        words = f": {', '.join(f'`{word}`' for word in each.words)}" if each.words else ""
        example = each.example.replace("|", "\\|")
        option = f"`--{each.name.replace('_', '-')}`"
        rows.append(f"| {option} | {help}{words} | `{example}` | {'yes' if each.over_rest else ''} |")
    return head + "\n".join(rows) + "\n"


def rest_page() -> str:
    """docs/rest.md: the calls of the gateway, as its OpenAPI document describes them."""
    document = create_app("grpc://127.0.0.1:8815", load_settings(ServerSettings)).openapi()
    head = f"{NOTE}# The REST calls\n\n{document['info']['description']}\n\n"
    head += "To try them: `/docs` of a running service. What the words mean is in [the wire contract](wire.md).\n"
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
    return {
        DOCS / "settings.md": settings_page(),
        DOCS / "rest.md": rest_page(),
        DOCS / "file-options.md": file_options_page(),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
        print(path.relative_to(DOCS.parent))
