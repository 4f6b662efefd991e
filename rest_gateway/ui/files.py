"""The files of the page: read once, hashed, packed with gzip; Plotly's script comes out of the installed package.

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

__all__ = ["PAGE", "PLOTLY", "PageFile", "PageFiles", "page_files"]

PAGE = "index.html"
PLOTLY = "plotly.min.js"
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
    """The files as they are installed; read at the first call, a gateway that nobody looks at never does."""
    found = {
        each.name: PageFile(each.read_bytes(), _MEDIA_TYPES[Path(each.name).suffix])
        for each in files(__package__).joinpath("static").iterdir()
        if Path(each.name).suffix in _MEDIA_TYPES
    }
    script = _plotly_script()
    if script is not None:
        found[PLOTLY] = PageFile(script.read_bytes(), _MEDIA_TYPES[".js"])
    return PageFiles(found)


def _plotly_script() -> Path | None:
    """The script in the installed ``plotly`` package, which is found but not imported; None where it is not there."""
    spec = find_spec("plotly")
    if spec is None or spec.origin is None:
        return None
    script = Path(spec.origin).with_name("package_data") / PLOTLY
    return script if script.is_file() else None
