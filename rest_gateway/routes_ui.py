"""The page to look at: ``/ui`` and its files. They hold no data and need no key; what it shows it asks of the API."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from rest_gateway.ui.files import PageFile, page_files

__all__ = ["CONTENT_SECURITY_POLICY", "router"]

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data: blob:",  # a picture of the chart is drawn from a blob
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
"""Nothing inline, nothing evaluated, nothing from anywhere else."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Vary": "Accept-Encoding",
}
_PAGE_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",  # the address names series
}
_ASK_EVERY_TIME = "no-cache"
_KEEP_FOR_EVER = "public, max-age=31536000, immutable"
_READ = ["GET", "HEAD"]

router = APIRouter(include_in_schema=False)


@router.api_route("/ui", methods=_READ)
def read_page(request: Request) -> Response:
    """The page; its query is for its own script."""
    return _answer(request, page_files().page, _ASK_EVERY_TIME, _PAGE_HEADERS)


@router.api_route("/ui/", methods=_READ)
def redirect_to_page() -> Response:
    """The page's own links are relative to ``/ui``, so that a proxy may put the gateway under any path."""
    return RedirectResponse("../ui", status_code=308)


@router.api_route("/ui/{version}/{name}", methods=_READ)
def read_file(version: str, name: str, request: Request) -> Response:
    """A file of the page. Of another version, which a gateway beside this one may have named, it is not to be kept."""
    files = page_files()
    file = files.by_name.get(name)
    if file is None:
        raise HTTPException(404)
    return _answer(request, file, _KEEP_FOR_EVER if version == files.version else _ASK_EVERY_TIME)


def _answer(request: Request, file: PageFile, caching: str, more: dict[str, str] | None = None) -> Response:
    packs = "gzip" in request.headers.get("accept-encoding", "")
    tag = f'"{file.hash}-gzip"' if packs else f'"{file.hash}"'
    headers = {**_HEADERS, **(more or {}), "Cache-Control": caching, "ETag": tag}
    known = {each.strip().removeprefix("W/") for each in request.headers.get("if-none-match", "").split(",")}
    if known & {tag, "*"}:
        return Response(status_code=304, headers=headers)
    if packs:
        headers["Content-Encoding"] = "gzip"
    return Response(file.packed if packs else file.body, media_type=file.media_type, headers=headers)
