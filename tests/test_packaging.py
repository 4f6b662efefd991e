"""What a release carries: all of the packages and nothing else in the wheel; units whose settings exist."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import timedb as td
from tests.timedb.cli.test_cli import timedb
from timedb._version import __version__
from timedb.contract.settings import ServerSettings

ROOT = Path(__file__).parents[1]
PACKAGES = ("timedb", "storage", "flight_server", "rest_gateway")
RELEASING = (ROOT / "CONTRIBUTING.md").read_text().partition("## Releasing")[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def files_of_packages() -> set[str]:
    """Every file of the four packages, as they lie here."""
    files = (file for package in PACKAGES for file in (ROOT / package).rglob("*") if file.is_file())
    here = {file.resolve().relative_to(ROOT) for file in files if "__pycache__" not in file.parts}
    return {str(file) for file in here}


def test_the_wheel_holds_the_packages_and_nothing_else(tmp_path: Path) -> None:
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(built) as wheel:
        held = {name for name in wheel.namelist() if ".dist-info/" not in name}
        (metadata,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
        stated = wheel.read(metadata).decode()
        scripts = wheel.read(metadata.replace("METADATA", "entry_points.txt")).decode()
    assert held == {f"timedb/{file.removeprefix('timedb/')}" for file in files_of_packages()}
    assert {"timedb/rest_gateway/ui/static/index.html", "timedb/cli/main.py"} <= held
    assert f"\nVersion: {__version__}\n" in stated
    assert {*re.findall(r"^Provides-Extra: (.+)$", stated, re.MULTILINE)} == set(PROJECT["optional-dependencies"])
    assert configparser_of(scripts)["console_scripts"] == dict.fromkeys(("timedb", "timedb-flight"), "timedb.cli:run")


def configparser_of(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.ConfigParser(delimiters=("=",), strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # its documented use
    parser.read_string(text)
    return {section: dict(parser[section]) for section in parser.sections()}


def test_an_editable_install_needs_no_package_that_the_lock_lacks(tmp_path: Path) -> None:
    (built,) = WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["editable"])
    with zipfile.ZipFile(built) as wheel:
        (pointer,) = (name for name in wheel.namelist() if ".dist-info/" not in name)  # no copy of ours, to go stale
        assert wheel.read(pointer).decode().split() == [str(ROOT)]


def test_the_sdist_holds_what_the_tests_need(tmp_path: Path) -> None:
    (built,) = SdistBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(built) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert files_of_packages() <= held
    for name in (
        "pyproject.toml",
        "LICENSE",
        "mkdocs.yml",
        ".containerignore",
        "packaging/timedb.service",
        "examples/honest_backtest.ipynb",
    ):
        assert name in held
    assert not [name for name in held if name.startswith((".venv", "timedb-data", "site/", ".git/"))]


@pytest.mark.parametrize(("lock", "extras"), [("serve", []), ("dev", ["dev"])])
def test_the_locked_versions_are_those_that_the_project_allows(lock: str, extras: list[str]) -> None:
    text = (ROOT / "requirements" / f"{lock}.txt").read_text()
    locked: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", text, re.MULTILINE):
        locked.setdefault(canonicalize_name(name), []).append(version)
    wanted = [Requirement(line) for line in PROJECT["dependencies"]]
    wanted += [Requirement(line) for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    loose = [
        f"{each}: locked {locked.get(canonicalize_name(each.name))}"
        for each in wanted
        if each.name != PROJECT["name"]
        and not all(version in each.specifier for version in locked.get(canonicalize_name(each.name), ["none"]))
    ]
    assert not loose, "`make lock` writes the locked versions anew"
    assert text.count("--hash=sha256:") >= len(locked)


def test_the_unit_is_closed_in(tmp_path: Path) -> None:
    unit = configparser_of((ROOT / "packaging" / "timedb.service").read_text())
    service = unit["Service"]
    assert service["ExecStart"].endswith("/timedb serve")
    for option in ("DynamicUser", "NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome"):
        assert service[option] == "yes", option
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""
    assert float(service["TimeoutStopSec"]) > 2 * ServerSettings.model_fields["shutdown_seconds"].default


@pytest.mark.parametrize("name", ["timedb.service", "Containerfile"])
def test_settings_that_are_named_exist(name: str) -> None:
    named = set(re.findall(r"TIMEDB_([A-Z_]+)=", (ROOT / "packaging" / name).read_text()))
    assert named - {"NAME"} <= {field.upper() for field in ServerSettings.model_fields}
    assert "LAKE" in named


def test_the_container_runs_without_privileges_and_copies_all_packages() -> None:
    lines = (ROOT / "packaging" / "Containerfile").read_text().splitlines()
    last_stage = lines[max(number for number, line in enumerate(lines) if line.startswith("FROM ")) :]
    (user,) = (line.split()[1] for line in last_stage if line.startswith("USER "))
    assert int(user) > 0
    assert any(line.startswith("HEALTHCHECK ") for line in last_stage)
    copied = {line.split()[1] for line in lines if re.match(r"COPY \w+ ", line)}
    assert set(PACKAGES) <= copied
    allowed = (ROOT / ".containerignore").read_text().split()
    assert {f"!{package}" for package in PACKAGES} <= set(allowed)


def lakes_named(text: str) -> set[str]:
    """Every lake that a text names, by option or by environment."""
    return set(re.findall(r"(?:--lake[ =]|TIMEDB_LAKE=)([^\s\\`]+)", text))


def test_the_unit_the_container_and_the_docs_speak_of_one_lake() -> None:
    lakes = {
        name: lakes_named((ROOT / name).read_text())
        for name in (
            "packaging/timedb.service",
            "packaging/Containerfile",
            "docs/operations.md",
            "docs/how-to/operator.md",
        )
    }
    served = configparser_of((ROOT / "packaging" / "timedb.service").read_text())["Service"]["Environment"]
    lake = served.removeprefix("TIMEDB_LAKE=")
    lakes["docs/operations.md"] -= {"/var/lib/timedb/restored", "s3://bucket/lake"}
    assert all(named == {lake} for named in lakes.values()), lakes
    assert Path(lake).parent == Path("/var/lib/timedb"), "in the state directory and the volume, not the folder itself"


def commands_in_comments(name: str) -> list[list[str]]:
    """The commands in the first lines of a file, whole where they go on in the next line."""
    head = re.match(r"(?:#.*\n)+", (ROOT / "packaging" / name).read_text())
    assert head
    text = re.sub(r"\\\n#\s*", " ", head[0])
    return [shlex.split(line[1:]) for line in text.splitlines() if "--" in line or "systemctl" in line]


@pytest.mark.parametrize("name", ["timedb.service", "Containerfile"])
def test_the_command_that_makes_users_closes_the_lake_that_is_served(name: str, tmp_path: Path) -> None:
    text = (ROOT / "packaging" / name).read_text()
    (command,) = (words for words in commands_in_comments(name) if words[-4:-1] == ["users", "create", "--email"])
    own = [word.removeprefix("Environment=") for word in command if word.startswith("Environment=")]
    (served,) = lakes_named(text[text.index("\n[Unit]" if name == "timedb.service" else "\nENV ") :])
    # A container has the environment of its image; a command beside the unit has what it is given.
    given = own or [f"TIMEDB_LAKE={served}"]
    here: dict[str, Any] = dict(setting.replace("/var/lib", str(tmp_path)).split("=", 1) for setting in given)
    done = timedb(*command[-4:], **here)
    assert done.returncode == 0, done.stderr
    assert [user["email"] for user in td.list_users(lake=served.replace("/var/lib", str(tmp_path)))] == command[-1:]


def test_the_docs_name_the_wheel_as_it_is_built() -> None:
    text = (ROOT / "docs" / "first-steps.md").read_text()
    assert set(re.findall(r"dist/([\w.]+-[\w.]+)-py3-none-any\.whl", text)) == {f"timedb_flight-{__version__}"}


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("packaging/*")], ids=str)
def test_nothing_says_that_it_is_installed_by_name_from_an_index(page: Path) -> None:
    found = re.findall(r"(?:pip install|pipx run|uvx) +'?timedb(?:-flight)?\b[^\n`]*", page.read_text())
    assert found == [], "it is not on PyPI, where timedb is another product"


def test_a_release_is_checked_by_its_signed_checksums(tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    key, files = tmp_path / "key", tmp_path / "files"
    run(tmp_path, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    files.mkdir()
    (files / "timedb-1.0-py3-none-any.whl").write_bytes(b"a wheel")
    (files / "sbom.cdx.json").write_bytes(b"{}")
    run(ROOT, "make", "--silent", "sign", f"RELEASE_DIR={files}", f"RELEASE_KEY={key}")
    (tmp_path / "signers").write_text(f"releases {key.with_suffix('.pub').read_text()}")
    checks = re.findall(r"^(ssh-keygen -Y verify .*|sha256sum --check .*)$", RELEASING, re.MULTILINE)
    assert len(checks) == 2, "what the page says is what is run"

    def outcome() -> list[int]:
        commands = [check.replace("release-signers", str(tmp_path / "signers")) for check in checks]
        return [subprocess.run(["sh", "-c", each], cwd=files, capture_output=True).returncode for each in commands]

    assert outcome() == [0, 0]
    (files / "timedb-1.0-py3-none-any.whl").write_bytes(b"another wheel")
    assert outcome() == [0, 1]
    sums = (files / "SHA256SUMS").read_text()
    (files / "SHA256SUMS").write_text(sums.replace(sums[:64], "0" * 64))
    assert outcome()[0] != 0


def run(folder: Path, *command: str) -> None:
    """Run a command that has to succeed."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["serve.txt", "dev.txt"])
def test_every_package_of_the_lock_has_its_hashes(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    pinned = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(pinned) > 20
    assert all(re.match(r"[\w.\[\],-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line) for line in pinned)
