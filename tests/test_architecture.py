"""The table of ARCHITECTURE.md, kept true: who may import whom, and how large a piece may be."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Folders of the checkout, and the name under which each is imported; see docs/decisions/0041-rooms-and-import-names.md.
PACKAGES = {
    "timedb": "timedb",
    "storage": "timedb.storage",
    "flight_server": "timedb.flight_server",
    "rest_gateway": "timedb.rest_gateway",
}

# Room by room, from the ground up: what each may import beside itself. A room may only name rooms above it in this
# table, so that there is neither a circle nor an arrow upwards. A module in no room of its package stands alone.
CONTRACT = "timedb/contract"
GROUND = ("storage/boundary", "storage/delta", "storage/memory")
ROWS = (*GROUND, "storage/tables", "storage/rows")
CATALOG = (*ROWS, "storage/users", "storage/catalog")
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "timedb/contract": (),
    "timedb/files": (CONTRACT,),
    "timedb/layouts": (CONTRACT, "timedb/files"),
    "timedb/client": (CONTRACT, "timedb/files", "timedb/layouts"),
    "timedb/imports": (CONTRACT, "timedb/files", "timedb/layouts", "timedb/client"),
    "storage/boundary": (CONTRACT,),
    "storage/delta": (CONTRACT,),
    "storage/memory": (CONTRACT,),
    "storage/measures": (CONTRACT,),
    "storage/tables": (CONTRACT, *GROUND),
    "storage/rows": (CONTRACT, *GROUND, "storage/tables"),
    "storage/users": (CONTRACT, *GROUND, "storage/tables"),
    "storage/catalog": (CONTRACT, *ROWS, "storage/users", "storage/measures"),
    "storage/commit": (CONTRACT, *CATALOG),
    "storage/write": (CONTRACT, *CATALOG, "storage/commit", "storage/measures"),
    "storage/read": (CONTRACT, *CATALOG, "storage/measures"),
    "storage/maintain": (CONTRACT, *CATALOG, "storage/commit", "storage/measures"),
    "storage/admin": (CONTRACT, *GROUND, "storage/tables", "storage/rows", "storage/catalog"),
    "storage/direct": (CONTRACT, *CATALOG, "storage/measures", "storage/read"),
    "storage": (CONTRACT, "storage/*"),
    "flight_server/call": (CONTRACT, "storage", "storage/users"),
    "flight_server/sql": (CONTRACT, "storage", "storage/tables", "flight_server/call"),
    "flight_server/rpc": (CONTRACT, "storage", "flight_server/call", "flight_server/sql"),
    "flight_server": (CONTRACT, "storage", "flight_server/*"),
    "rest_gateway/http": (CONTRACT, "timedb/client"),
    "rest_gateway/answer": (CONTRACT, "timedb/client", "timedb/files"),
    "rest_gateway/openapi": (CONTRACT, "timedb/files", "timedb/layouts", "rest_gateway/http", "rest_gateway/answer"),
    "rest_gateway/ask": (
        CONTRACT,
        "timedb/client",
        "timedb/files",
        "timedb/layouts",
        "rest_gateway/http",
        "rest_gateway/answer",
        "rest_gateway/openapi",
    ),
    "rest_gateway/ui": (CONTRACT,),
    "rest_gateway/routes": (CONTRACT, "timedb/client", "timedb/files", "rest_gateway/*"),
    "rest_gateway": (CONTRACT, "rest_gateway/*"),
    "timedb/run": (
        CONTRACT,
        "timedb/client",
        "storage",
        "storage/users",
        "flight_server",
        "flight_server/call",
        "rest_gateway",
    ),
    # The faces that users import, and the command line: they alone know everybody.
    "timedb": (CONTRACT, "timedb/client", "timedb/run", "storage", "storage/direct", "rest_gateway"),
    "timedb/cli": (
        CONTRACT,
        "timedb",
        "timedb/client",
        "timedb/files",
        "timedb/layouts",
        "timedb/imports",
        "timedb/run",
        "storage",
        "flight_server/call",
    ),
}
# Python and the build want these two where they lie.
AT_HOME_ELSEWHERE = {"timedb/_version": CONTRACT, "timedb/__main__": "timedb/cli"}

MAX_MODULE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_CONFTEST_LINES = 300
MIN_DOCSTRING_WORDS = 4
FORBIDDEN_NAMES = re.compile(r"util(s|ity|ities)?|helpers?|managers?|common|misc|base")


def module_name(path: Path) -> str:
    """``storage/read/winners.py`` → ``timedb.storage.read.winners``; a package is called by its folder."""
    folder, *rest = path.relative_to(ROOT).with_suffix("").parts
    return ".".join([PACKAGES[folder], *rest]).removesuffix(".__init__")


MODULES = {
    module_name(path): path
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.resolve() == path  # `timedb/storage` and its like are links to the folders beside it
}
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in MODULES.items()}


def room_of(module: str) -> str:
    """In which room a module is: ``timedb.storage.read.winners`` → ``storage/read``."""
    path = MODULES[module].relative_to(ROOT)
    room = "/".join(path.with_suffix("").parts[:2])
    return AT_HOME_ELSEWHERE.get(room, room if room in MAY_IMPORT else path.parts[0])


def may_import(room: str, other: str) -> bool:
    """Whether the table lets a room import another."""
    return any(
        other == each or (each.endswith("/*") and other.startswith(each.removesuffix("*"))) for each in MAY_IMPORT[room]
    )


def imported_modules(module: str, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every module that a module imports anywhere, also inside functions: (line, dotted name)."""
    is_package = MODULES[module].name == "__init__.py"
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            base = parts[: len(parts) - node.level + is_package] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                # `from timedb import wire` names a module, `from timedb.contract.wire import parse` a thing in one.
                yield node.lineno, f"{source}.{alias.name}" if f"{source}.{alias.name}" in MODULES else source
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            named = node.args[0] if node.args else None
            if isinstance(named, ast.Constant):
                yield node.lineno, str(named.value)


def definitions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Every function and class of a module, also nested ones."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node


def test_every_module_has_its_room() -> None:
    assert {room_of(name) for name in MODULES} == set(MAY_IMPORT)


def test_the_table_of_rooms_has_no_circle_and_no_arrow_upwards() -> None:
    floors = list(MAY_IMPORT)
    for floor, room in enumerate(floors):
        below = [name for name in floors if name != room and may_import(room, name)]
        assert set(below) <= set(floors[:floor]), f"{room} may import what lies above it"


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_in_the_allowed_direction(module: str) -> None:
    room = room_of(module)
    wrong = [
        f"{MODULES[module].relative_to(ROOT)}:{line} imports {name}"
        for line, name in imported_modules(module, TREES[module])
        if name.partition(".")[0] in PACKAGES
        and (name not in MODULES or (room_of(name) != room and not may_import(room, room_of(name))))
    ]
    assert not wrong


def test_architecture_md_draws_the_rooms_as_they_are() -> None:
    (drawn,) = re.findall(r"```mermaid\n(.*?)```", (ROOT / "ARCHITECTURE.md").read_text(), re.DOTALL)
    arrows = set(re.findall(r"^ *(\S+) --> (\S+)$", drawn, re.MULTILINE))
    assert arrows == without_detours(imports_between_rooms())


def imports_between_rooms() -> set[tuple[str, str]]:
    """Every arrow between two rooms, but those to the contract, which everybody stands on."""
    return {
        (room_of(module), room_of(name))
        for module, tree in TREES.items()
        for _, name in imported_modules(module, tree)
        if name in MODULES and room_of(name) not in (room_of(module), CONTRACT)
    }


def without_detours(arrows: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """The arrows that follow from no two others: what is drawn, so that the picture can be read."""
    reach = set(arrows)
    while more := {(a, d) for a, b in reach for c, d in reach if b == c} - reach:
        reach |= more
    return {(a, b) for a, b in arrows if not any((a, c) in reach and (c, b) in reach for _, c in reach)}


def test_importing_storage_does_not_pull_in_a_client_or_a_server() -> None:
    code = "import sys, timedb.storage; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(loaded.stdout.split()) & {
        "timedb.client",
        "timedb.flight_server",
        "timedb.rest_gateway",
        "fastapi",
        "typer",
    }


def test_every_library_that_is_imported_is_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = [
        line for name in ("pandas", "dask", "xlsx", "postgres") for line in project["optional-dependencies"][name]
    ]
    declared = {canonical(re.split(r"[^\w.-]", line)[0]) for line in [*project["dependencies"], *optional]}
    distributions = packages_distributions()
    missing = {
        f"{module} imports {top}"
        for module, tree in TREES.items()
        for _, name in imported_modules(module, tree)
        if (top := name.partition(".")[0]) not in sys.stdlib_module_names
        and top not in PACKAGES
        and not declared & {canonical(each) for each in distributions.get(top, [top])}
    }
    assert not missing


def canonical(distribution: str) -> str:
    """A distribution's name as package registries compare it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


@pytest.mark.parametrize("module", MODULES)
def test_modules_and_functions_stay_small(module: str) -> None:
    path = MODULES[module]
    assert len(path.read_text().splitlines()) < MAX_MODULE_LINES
    assert not FORBIDDEN_NAMES.fullmatch(path.stem.strip("_")), "a name that says nothing draws everything in"
    assert not [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {lines} lines"
        for node in definitions(TREES[module])
        if not isinstance(node, ast.ClassDef) and (lines := body_lines(node)) >= MAX_FUNCTION_LINES
    ]


def test_conftests_stay_small() -> None:
    for path in (ROOT / "tests").rglob("conftest.py"):
        assert len(path.read_text().splitlines()) < MAX_CONFTEST_LINES, path


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0


@pytest.mark.parametrize("module", MODULES)
def test_everything_public_has_a_docstring(module: str) -> None:
    tree = TREES[module]
    path = MODULES[module].relative_to(ROOT)
    bare = [] if ast.get_docstring(tree) or not tree.body else [f"{path}: the module"]
    found = importlib.import_module(module)
    bare += [f"{path}:{node.lineno} {node.name}" for node in public_definitions(tree, found) if says_little(node)]
    assert not bare


def says_little(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> bool:
    """Whether a docstring is missing, or so short that it can only repeat the name."""
    return len((ast.get_docstring(node) or "").split()) < MIN_DOCSTRING_WORDS


def public_definitions(
    scope: ast.Module | ast.ClassDef, found: object
) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Public functions, classes and methods; an overload's stub and an override need no docstring of their own.

    Args:
        scope: A module, or a class in one.
        found: What it is when it has been imported.
    """
    inherited = {name for base in getattr(found, "__mro__", ())[1:] for name in vars(base)}
    for node in scope.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        decorators = {ast.unparse(each).rpartition(".")[2] for each in node.decorator_list}
        if not decorators & {"overload", "setter"} and node.name not in inherited:
            yield node
        if isinstance(node, ast.ClassDef):
            yield from public_definitions(node, getattr(found, node.name, None))
