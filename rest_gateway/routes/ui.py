"""The pages: ``/ui``, to look at series, and ``/docs``, to read and try the API, with their files.

They hold no data and need no key; what they show they ask of the API.
"""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from timedb.rest_gateway.answer.preferences import weighted
from timedb.rest_gateway.http.caching import not_modified
from timedb.rest_gateway.ui.files import PageFile, PageFiles, docs_files, page_files

__all__ = ["CONTENT_SECURITY_POLICY", "DOCS_SECURITY_POLICY", "router"]

_OWN_ONLY = (
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "connect-src 'self'",
    "img-src 'self' data: blob:",  # a picture of the chart is drawn from a blob
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
)
CONTENT_SECURITY_POLICY = "; ".join((*_OWN_ONLY, "require-trusted-types-for 'script'", "trusted-types 'none'"))
"""Nothing inline, nothing evaluated, nothing from anywhere else."""
DOCS_SECURITY_POLICY = "; ".join(_OWN_ONLY)
"""The same for Swagger UI, which cannot do without writing cleaned HTML into its page."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Vary": "Accept-Encoding",
}
_PAGE_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address names series
}
_ASK_EVERY_TIME = "no-cache"
_KEEP_FOR_EVER = "public, max-age=31536000, immutable"
_READ = ["GET", "HEAD"]

router = APIRouter(include_in_schema=False)


@router.api_route("/ui", methods=_READ)
async def read_page(request: Request) -> Response:
    """The page; its query is for its own script."""
    return _page(request, page_files(), CONTENT_SECURITY_POLICY)


@router.api_route("/ui/", methods=_READ)
async def redirect_to_page() -> Response:
    """The page's own links are relative to ``/ui``, so that a proxy may put the gateway under any path."""
    return RedirectResponse("../ui", status_code=308)


@router.api_route("/ui/{version}/{name}", methods=_READ)
async def read_file(version: str, name: str, request: Request) -> Response:
    """A file of the page. Of another version, which a gateway beside this one may have named, it is not to be kept."""
    return _file(request, page_files(), version, name)


@router.api_route("/docs", methods=_READ)
async def read_docs(request: Request) -> Response:
    """Swagger UI over ``/openapi.json``."""
    return _page(request, docs_files(), DOCS_SECURITY_POLICY)


@router.api_route("/docs/{version}/{name}", methods=_READ)
async def read_docs_file(version: str, name: str, request: Request) -> Response:
    """A file of that page."""
    return _file(request, docs_files(), version, name)


def _page(request: Request, files: PageFiles, policy: str) -> Response:
    return _answer(request, files.page, _ASK_EVERY_TIME, _PAGE_HEADERS | {"Content-Security-Policy": policy})


def _file(request: Request, files: PageFiles, version: str, name: str) -> Response:
    file = files.by_name.get(name)
    if file is None:
        raise HTTPException(404)
    return _answer(request, file, _KEEP_FOR_EVER if version == files.version else _ASK_EVERY_TIME)


def _answer(request: Request, file: PageFile, caching: str, more: dict[str, str] | None = None) -> Response:
    packs = weighted(request.headers.get("accept-encoding", "")).get("gzip", 0.0) > 0
    tag = f'"{file.hash}-gzip"' if packs else f'"{file.hash}"'
    headers = {**_HEADERS, **(more or {}), "Cache-Control": caching, "ETag": tag}
    if not_modified(request.headers, tag):
        return Response(status_code=304, headers=headers)
    if packs:
        headers["Content-Encoding"] = "gzip"
    return Response(file.packed if packs else file.body, media_type=file.media_type, headers=headers)
