"""The files of the two pages, ``/ui`` and ``/docs``: read once, hashed, packed with gzip. What is not ours, the scripts
of Plotly and of Swagger UI, comes out of installed packages.

They are addressed under the hash of them all, so that a browser may keep them for ever and never mixes two versions.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

__all__ = ["PAGE", "PLOTLY", "SWAGGER", "PageFile", "PageFiles", "docs_files", "page_files"]

PAGE = "index.html"
PLOTLY = "plotly.min.js"
SWAGGER = ("swagger-ui-bundle.js", "swagger-ui.css")
_PLACE_OF_FILES = b"{{files}}"
_PLACE_OF_MAP_STYLE = b"{{map_style}}"
_MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HASH_CHARS = 16
# As it starts, Plotly writes a style sheet for its maps into the document, unless an element of this id is there.
_MAP_STYLE = re.compile(rb'if\(!document\.getElementById\("([0-9a-f]{64})"\)\)')


@dataclass(frozen=True)
class PageFile:
    """One file as it is served.

    Attributes:
        body: Its bytes.
        media_type: As in ``Content-Type``.
    """

    body: bytes
    media_type: str

    @cached_property
    def packed(self) -> bytes:
        """The body under gzip, the same bytes every time."""
        return gzip.compress(self.body, 6, mtime=0)

    @cached_property
    def hash(self) -> str:
        """Changes with the body."""
        return hashlib.sha256(self.body).hexdigest()[:_HASH_CHARS]


class PageFiles:
    """All files of the page.

    Attributes:
        version: The hash of them all; part of their address.
        by_name: Everything but the page itself, which names this version.
        page: The page.
    """

    def __init__(self, found: dict[str, PageFile]) -> None:
        every = "".join(f"{name} {file.hash}\n" for name, file in sorted(found.items()))
        self.version = hashlib.sha256(every.encode()).hexdigest()[:_HASH_CHARS]
        self.by_name = {name: file for name, file in found.items() if name != PAGE}
        map_style = _MAP_STYLE.search(found[PLOTLY].body) if PLOTLY in found else None
        body = found[PAGE].body.replace(_PLACE_OF_FILES, self.version.encode())
        body = body.replace(_PLACE_OF_MAP_STYLE, map_style[1] if map_style else b"no-map-style")
        self.page = PageFile(body, found[PAGE].media_type)


@cache
def page_files() -> PageFiles:
    """The files of ``/ui`` as they are installed; read at the first call, a gateway that nobody looks at never does."""
    return _files_of("static", "plotly", "package_data", PLOTLY)


@cache
def docs_files() -> PageFiles:
    """The files of ``/docs``, likewise."""
    return _files_of("docs", "fastapi_offline", "static", *SWAGGER)


def _files_of(folder: str, package: str, data: str, *names: str) -> PageFiles:
    """Our files in a folder, and those of that name in an installed package, which is found but not imported.

    They are left out where the package is not there.
    """
    paths = [*files(__package__).joinpath(folder).iterdir()]
    spec = find_spec(package)
    if spec is not None and spec.origin is not None:
        installed = Path(spec.origin).with_name(data)
        paths += [installed / name for name in names if (installed / name).is_file()]
    kinds = [(each, Path(each.name).suffix) for each in paths]
    return PageFiles({each.name: PageFile(each.read_bytes(), _MEDIA_TYPES[kind]) for each, kind in kinds if kind})
