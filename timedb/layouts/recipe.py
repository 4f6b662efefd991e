"""Recipes: the options of a layout as a TOML file, of somebody's own or one of those that are shipped."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from timedb.contract.errors import InvalidRequest
from timedb.contract.spelling import did_you_mean
from timedb.contract.wire import quoted
from timedb.layouts.layout import Spoken, as_option
from timedb.layouts.options import FILE_OPTIONS, RUN_OPTIONS

__all__ = ["load_recipe", "recipe_text", "shipped_recipes"]

_ABOUT = "about"
_KINDS = {"text": str, "word": str, "length": str, "flag": bool, "count": int}
_OPTIONS = {each.name: each for each in (*FILE_OPTIONS, *RUN_OPTIONS)}


def shipped_recipes() -> dict[str, str]:
    """The recipes that come with TimeDB: name → TOML text."""
    folder = resources.files("timedb.layouts").joinpath("recipes")
    return {
        each.name.removesuffix(".toml"): each.read_text(encoding="utf-8")
        for each in sorted(folder.iterdir(), key=lambda found: found.name)
        if each.name.endswith(".toml")
    }


def load_recipe(name: str | Path, spoken: Spoken = as_option) -> dict[str, Any]:
    """The options that a recipe says.

    Args:
        name: A TOML file, or the name of a recipe that is shipped.
        spoken: How errors name options.

    Raises:
        InvalidRequest: there is none, it is no TOML, or says an option that does not exist or does not fit.
    """
    what = f"{spoken('recipe')}: {quoted(str(name))}"
    try:
        text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        shipped = shipped_recipes()
        if str(name) not in shipped:
            reason = getattr(error, "strerror", None) or "is not UTF-8 text"
            raise InvalidRequest(f"{what}: {reason}{did_you_mean(str(name), shipped)}") from None
        text = shipped[str(name)]
    try:
        said = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequest(f"{what}: is not TOML: {error}") from None
    said.pop(_ABOUT, None)
    for option, value in said.items():
        _check(option, value, what)
    return said


def _check(name: str, value: Any, what: str) -> None:
    option = _OPTIONS.get(name)
    if option is None:
        raise InvalidRequest(f"{what}: there is no option {quoted(name)}{did_you_mean(name, _OPTIONS)}")
    if name == "run_params" and isinstance(value, dict):
        return
    if option.kind == "texts":
        right = isinstance(value, list) and all(isinstance(each, str) for each in value)
        right = right or (name in ("label", "label_value") and isinstance(value, dict))
    else:
        kind = _KINDS[option.kind]
        right = isinstance(value, kind) and not (kind is int and isinstance(value, bool))
    if not right:
        wanted = {"texts": "a list of texts", "flag": "true or false", "count": "a whole number"}.get(
            option.kind, "a text"
        )
        raise InvalidRequest(f"{what}: {name} = {quoted(str(value))} is not {wanted}")


def recipe_text(said: Mapping[str, Any]) -> str:
    """Options as a recipe.

    Args:
        said: Option → value, those that were said, of :data:`FILE_OPTIONS` and :data:`RUN_OPTIONS`.
    """
    lines = []
    for option in _OPTIONS.values():
        value = said.get(option.name)
        if value in (None, False, (), []):
            continue
        if isinstance(value, tuple):
            value = list(value)
        if isinstance(value, Mapping):
            items = ", ".join(f"{_toml(str(key))} = {_toml(each)}" for key, each in value.items())
            lines.append(f"{option.name} = {{ {items} }}")
        else:
            lines.append(f"{option.name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    """JSON texts, numbers, truth values and lists are TOML, but for one control character."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
