"""The page's files as HTTP sees them: policy, caching, packing; and where Plotly's script comes from."""

from __future__ import annotations

import gzip
import re
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path

import httpx
import pytest

from timedb.rest_gateway.routes.ui import CONTENT_SECURITY_POLICY
from timedb.rest_gateway.ui.files import PAGE, PLOTLY, PageFile, PageFiles, page_files


def named(rest: httpx.Client) -> list[str]:
    """The paths of the files that the page names."""
    return sorted(set(re.findall(r'(?:src|href)="(ui/[^"]+)"', rest.get("/ui").text)))


def test_the_page_runs_nothing_but_its_own_scripts(rest: httpx.Client) -> None:
    answer = rest.get("/ui")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert "http" not in CONTENT_SECURITY_POLICY
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=|javascript:|https?://", answer.text)
    assert "{{" not in answer.text


def test_files_are_kept_for_ever_and_the_page_is_asked_for_anew(rest: httpx.Client) -> None:
    page = rest.get("/ui", headers={"Accept-Encoding": "identity"})
    assert page.headers["cache-control"] == "no-cache"
    again = rest.get(
        "/ui", headers={"Accept-Encoding": "identity", "If-None-Match": f'"other", W/{page.headers["etag"]}'}
    )
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert rest.get("/ui", headers={"If-None-Match": '"other"'}).status_code == 200
    paths = named(rest)
    assert len(paths) >= 5
    for path in paths:
        file = rest.get(f"/{path}")
        assert file.status_code == 200
        assert file.headers["cache-control"] == "public, max-age=31536000, immutable"
    old = rest.get("/ui/0123456789abcdef/main.js")
    assert (old.status_code, old.headers["cache-control"]) == (200, "no-cache")


def test_every_module_that_is_imported_is_there(rest: httpx.Client) -> None:
    files = page_files()
    scripts = {
        name: file.body.decode() for name, file in files.by_name.items() if name.endswith(".js") and name != PLOTLY
    }
    imported = {path for text in scripts.values() for path in re.findall(r'(?:from|import\() ?"\./([^"]+)"', text)}
    assert imported <= set(files.by_name)
    assert {*imported, "main.js"} >= set(scripts), "a file that nothing imports"
    assert [name for name, text in scripts.items() if len(text.splitlines()) >= 300] == []
    assert [name for name, text in scripts.items() if re.search(r"innerHTML|\beval\b|https?://", text)] == []


def test_plotly_comes_packed_from_the_installed_package(rest: httpx.Client) -> None:
    path = f"/ui/{page_files().version}/{PLOTLY}"
    packed = rest.get(path, headers={"Accept-Encoding": "gzip"})
    plain = rest.get(path, headers={"Accept-Encoding": "identity"})
    installed = Path(str(distribution("plotly").locate_file(f"plotly/package_data/{PLOTLY}"))).read_bytes()
    assert packed.content == plain.content == installed
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < len(installed) / 3
    assert packed.headers["etag"] != plain.headers["etag"]
    assert packed.headers["vary"] == "Accept-Encoding"
    assert rest.head(path).headers["content-length"] == packed.headers["content-length"]


def test_plotly_is_found_without_importing_it() -> None:
    code = (
        "import sys, timedb.rest_gateway.ui.files as f; assert f.PLOTLY in f.page_files().by_name; print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "plotly" not in loaded.stdout.split()


@pytest.mark.parametrize(
    "path", ["/ui/x/no.js", "/ui/x/../../files.py", "/ui/x/%2e%2e%2ffiles.py", f"/ui/x/{PAGE}", "/ui/x"]
)
def test_what_is_no_file_of_the_page_is_not_found(rest: httpx.Client, path: str) -> None:
    answer = rest.get(path)
    assert answer.status_code == 404
    assert answer.json()["code"] == "not_found"


def test_the_page_moves_with_a_proxys_path(rest: httpx.Client) -> None:
    assert rest.get("/ui/").headers["location"] == "../ui"
    assert all(path.startswith("ui/") for path in named(rest))
    assert rest.post("/ui").status_code == 405


def test_another_body_is_another_version() -> None:
    def version(text: bytes) -> str:
        page = PageFile(b'<script src="ui/{{files}}/a.js">', "text/html")
        return PageFiles({PAGE: page, "a.js": PageFile(text, "text/javascript")}).version

    assert version(b"1") != version(b"2") == version(b"2")
    assert gzip.decompress(PageFile(b"text", "text/plain").packed) == b"text"


def test_the_root_and_the_server_name_the_page(rest: httpx.Client) -> None:
    assert rest.get("/").json()["endpoints"]["ui"].startswith("GET /ui - ")
