"""The table of ARCHITECTURE.md, kept true: who may import whom, and how large a piece may be."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("timedb", "storage", "flight_server", "rest_gateway")

VOCABULARY = {
    "timedb._version",
    "timedb.columns",
    "timedb.durations",
    "timedb.errors",
    "timedb.identity",
    "timedb.message_sizes",
    "timedb.number_columns",
    "timedb.numbers",
    "timedb.request_id",
    "timedb.settings",
    "timedb.spelling",
    "timedb.times",
    "timedb.wire",
    "timedb.wire_fields",
}
# The composition roots alone start servers; `timedb/__init__` is lazy and names the public surface.
ROOTS = {
    "timedb",
    "timedb.__main__",
    "timedb.api",
    "timedb.cli",
    "timedb.direct",
    "timedb.launch",
    "timedb.sdk",
    "timedb.users",
}

MAY_IMPORT = {
    "vocabulary": {"vocabulary"},
    "client": {"vocabulary", "client"},
    "storage": {"vocabulary", "storage"},
    "flight_server": {"vocabulary", "storage", "flight_server"},
    "rest_gateway": {"vocabulary", "client", "rest_gateway"},
    "root": {"vocabulary", "client", "storage", "flight_server", "rest_gateway", "root"},
}

MAX_MODULE_LINES = 500
MAX_FUNCTION_LINES = 60
MAX_CONFTEST_LINES = 300
FORBIDDEN_NAMES = re.compile(r"util(s|ity|ities)?|helpers?|managers?|common|misc|base")


def module_name(path: Path) -> str:
    """``timedb/cli/main.py`` → ``timedb.cli.main``; a package is called by its folder."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(), str(path)) for name, path in MODULES.items()}


def group_of(module: str) -> str:
    """To which row of the table a module belongs."""
    package, _, rest = module.partition(".")
    if package != "timedb":
        return package
    if module in VOCABULARY:
        return "vocabulary"
    if module in ROOTS or f"timedb.{rest.partition('.')[0]}" in ROOTS - {"timedb"}:
        return "root"
    return "client"


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
                # `from timedb import wire` names a module, `from timedb.wire import parse` a thing in one.
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


def test_the_four_packages_are_there() -> None:
    assert {name.partition(".")[0] for name in MODULES} == set(PACKAGES)
    assert set(MODULES) >= VOCABULARY


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_in_the_allowed_direction(module: str) -> None:
    allowed = MAY_IMPORT[group_of(module)]
    wrong = [
        f"{MODULES[module].relative_to(ROOT)}:{line} imports {name}"
        for line, name in imported_modules(module, TREES[module])
        if name.partition(".")[0] in PACKAGES and group_of(name) not in allowed
    ]
    assert not wrong


def test_importing_storage_does_not_pull_in_a_client_or_a_server() -> None:
    code = "import sys, storage; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not set(loaded.stdout.split()) & {"timedb.client", "flight_server", "rest_gateway", "fastapi", "typer"}


def test_every_library_that_is_imported_is_a_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = [line for name in ("pandas", "dask") for line in project["optional-dependencies"][name]]
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
    bare += [f"{path}:{node.lineno} {node.name}" for node in public_definitions(tree) if not ast.get_docstring(node)]
    assert not bare


def public_definitions(
    scope: ast.Module | ast.ClassDef,
) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef]:
    """Public functions, classes and methods; an overload's stub and an override need none of their own."""
    for node in scope.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        decorators = {ast.unparse(each).rpartition(".")[2] for each in node.decorator_list}
        if not decorators & {"overload", "override", "setter"}:
            yield node
        if isinstance(node, ast.ClassDef):
            yield from public_definitions(node)
