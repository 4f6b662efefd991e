"""What documents, docstrings and comments name is there: files, modules, functions, tests."""

from __future__ import annotations

import ast
import importlib
import io
import re
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.test_architecture import MODULES

ROOT = Path(__file__).parents[1]
FOLDERS = ("timedb", "storage", "flight_server", "rest_gateway", "tests", "benchmarks", "docs", "examples", "packaging")
# Lines about files of others: of users, of other repositories.
ELSEWHERE = re.compile(r"rebase-energy|timely-beliefs|scripts/|PROTOCOL|https?://|user's own|a user's|`storage.py`")
# Dotted names that are no Python: loggers, and what a commit carries.
NO_PYTHON = {"timedb.audit", "timedb.rest", "timedb.flight", "timedb.change_time", "timedb.values_version"}


def files(suffix: str) -> list[Path]:
    """Every file of the repository with a suffix, once, whatever links lead to it."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob(f"*{suffix}") if path.resolve() == path]
    return sorted([*ROOT.glob(f"*{suffix}"), *found])


SOURCES = files(".py")
PAGES = [path for path in files(".md") if path.name != "CHANGELOG.md"]  # which tells of what was


def prose(path: Path) -> Iterator[str]:
    """What a file says to its reader: a page, or the docstrings and comments of a module."""
    text = path.read_text()
    if path.suffix == ".md":
        yield text
        return
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


@cache
def names_of_files() -> frozenset[str]:
    """Every path of a file, from any folder above it on: ``c``, ``b/c`` and ``a/b/c``."""
    parts = [path.relative_to(ROOT).parts for suffix in (".py", ".md", ".toml", ".yml") for path in files(suffix)]
    return frozenset("/".join(each[start:]) for each in parts for start in range(len(each)))


@cache
def resolves(dotted: str) -> bool:
    """Whether a dotted name is a module of ours or something in one."""
    module = dotted
    attributes: list[str] = []
    while module:
        try:
            found: object = importlib.import_module(module)
        except ModuleNotFoundError:
            module, _, last = module.rpartition(".")
            attributes.insert(0, last)
            continue
        for name in attributes:
            if not has(found, name):
                return False
            found = getattr(found, name, None)
        return True
    return False


def has(owner: object, name: str) -> bool:
    """Whether a module or class has an attribute, be it a field without a default."""
    return hasattr(owner, name) or name in getattr(owner, "__annotations__", {})


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_what_is_named_is_there(path: Path) -> None:
    missing = []
    for text in prose(path):
        for line in text.splitlines():
            if not ELSEWHERE.search(line):
                named = re.findall(r"(?<![\w./*{<-])((?:\w[\w-]*/)*\w[\w-]*\.(?:py|md|toml|yml))\b(?!\()", line)
                missing += [each for each in named if each not in names_of_files()]
        dotted = re.findall(r"`~?((?:timedb|tests|benchmarks)(?:\.[A-Za-z_]\w*)+)(?:\(\))?`", text)
        missing += [each for each in dotted if each not in NO_PYTHON and not resolves(each)]
    assert not missing


@pytest.mark.parametrize("module", MODULES)
def test_what_a_docstring_refers_to_is_there(module: str) -> None:
    found = importlib.import_module(module)
    classes = [each for each in vars(found).values() if isinstance(each, type)]
    missing = []
    for text in prose(MODULES[module]):
        for name in re.findall(r":(?:attr|class|data|exc|func|meth|mod):`~?([\w.]+)`", text):
            owner, _, attribute = name.rpartition(".")
            known = (
                resolves(name)
                if name.startswith("timedb.")
                else any(
                    has(each, attribute) for each in ([getattr(found, owner, None)] if owner else [found, *classes])
                )
            )
            missing += [] if known else [name]
    assert not missing


def test_tests_that_pages_name_are_there() -> None:
    tests = {path: path.read_text() for path in SOURCES if path.name.startswith("test_")}
    names = {name for text in tests.values() for name in re.findall(r"def (test_\w+)", text)}
    names |= {path.stem for path in tests}
    missing = {
        (str(page.relative_to(ROOT)), name)
        for page in PAGES
        for name in re.findall(r"\btest_\w+", page.read_text())
        if name not in names
    }
    assert not missing
