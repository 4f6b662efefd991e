"""Forms with a file in them, as browsers and ``curl -F`` send it (RFC 7578): one file, and fields beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from timedb.contract.errors import InvalidRequest, TooLarge
from timedb.contract.wire import quoted

__all__ = ["FORM_SCHEMA", "FORM_TYPE", "Form"]

FORM_TYPE = "multipart/form-data"
_FILE = "file"
FORM_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": [_FILE],
    "properties": {_FILE: {"type": "string", "format": "binary", "description": "The file; its name says what it is"}},
    "additionalProperties": {"type": "string", "description": "A query parameter"},
}
_MOST_PARTS = 256
_MOST_HEADER_BYTES = 8 << 10
_MOST_FIELD_BYTES = 64 << 10
_BOUNDARY = re.compile(r";\s*boundary=(\"?)([0-9A-Za-z'()+_,./:=? -]{1,70})\1\s*(?:;|$)", re.IGNORECASE)
_PARAMETER = re.compile(r';\s*(name|filename)=("(?:[^"\\]|\\.)*"|[^\s;"]*)', re.IGNORECASE)
_ESCAPED = re.compile(r"\\(.)")
_PLAIN = ("", "7bit", "8bit", "binary")


@dataclass(slots=True)
class Form:
    """A form, whose body is yet to come.

    Attributes:
        boundary: What stands between its parts.
        fields: What it says beside the file; a field that was left empty says nothing.
        media_type: What it says of the file, as ``Content-Type``.
        filename: What the file is called there.
    """

    boundary: str
    fields: list[tuple[str, str]] = field(default_factory=list)
    media_type: str = ""
    filename: str = ""

    @classmethod
    def announced_by(cls, request: Request) -> Form | None:
        """The form that the head of a call announces; None: its body is none.

        Raises:
            InvalidRequest: it does not say what stands between the parts.
        """
        said = request.headers.get("content-type", "")
        if said.partition(";")[0].strip().lower() != FORM_TYPE:
            return None
        found = _BOUNDARY.search(said)
        if found is None:
            raise InvalidRequest(f"Content-Type: {quoted(said)} has no boundary")
        return cls(found[2].rstrip())

    def file_in(self, body: bytes) -> bytes:
        """The file in the body; what else is there goes into the attributes.

        Raises:
            InvalidRequest: the body is no form, or not whole, or has no file or several of them.
            TooLarge: it has too many parts, or fields that are too long.
        """
        files: list[bytes] = []
        length = 0
        for number, (start, stop, headers) in enumerate(_parts(body, self.boundary.encode()), 1):
            if number > _MOST_PARTS:
                raise TooLarge(f"body: is over the limit of {_MOST_PARTS} parts of a form")
            said = {name.lower(): text[1:-1] if text[:1] == '"' else text for name, text in _PARAMETER.findall(headers)}
            name, filename = (_unescaped(said.get(each, "")) for each in ("name", "filename"))
            if not name:
                raise InvalidRequest(f"body: part {number} of the form has no name")
            if _header(headers, "content-transfer-encoding").lower() not in _PLAIN:
                raise InvalidRequest(f"{name}: has a Content-Transfer-Encoding; a form sends files as they are")
            if "filename" in said or name == _FILE:
                self.media_type, self.filename = _header(headers, "content-type").partition(";")[0].lower(), filename
                files.append(body[start:stop])
            elif start < stop:
                length += stop - start
                if length > _MOST_FIELD_BYTES:
                    raise TooLarge(f"{name}: fields are over the limit of {_MOST_FIELD_BYTES} bytes; a file has a name")
                self.fields.append((name, _text(body[start:stop], name)))
            if len(files) > 1:
                raise InvalidRequest(f"{name}: is a second file; a call takes one")
        if not files or not (files[0] or self.filename):
            raise InvalidRequest(f"{_FILE}: is missing; the form has fields alone")
        return files[0]


def _parts(body: bytes, boundary: bytes) -> list[tuple[int, int, str]]:
    """Where the parts begin and end, and their headers; one more than there may be, if there are more."""
    dashes = b"--" + boundary
    between = b"\r\n" + dashes
    at = 0 if body.startswith(dashes) else body.find(between) + 2
    found: list[tuple[int, int, str]] = []
    while at != 1 and len(found) <= _MOST_PARTS:
        at += len(dashes)
        if body[at : at + 2] == b"--":
            return found
        head = body.find(b"\r\n", at)
        start = body.find(b"\r\n\r\n", head, head + _MOST_HEADER_BYTES) if head >= 0 else -1
        stop = body.find(between, start) if start >= 0 else -1
        if stop < 0 or body[at:head].strip():
            break
        found.append((min(start + 4, stop), stop, _text(body[head:start], "body")))
        at = stop + 2
    if len(found) > _MOST_PARTS:
        return found
    raise InvalidRequest("body: is no form, or not whole: what the Content-Type names as boundary does not end it")


def _header(headers: str, name: str) -> str:
    for line in headers.split("\r\n"):
        key, _, text = line.partition(":")
        if key.strip().lower() == name:
            return text.strip()
    return ""


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(r"\1", text).replace("%22", '"')


def _text(data: bytes, name: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidRequest(f"{name}: is not UTF-8") from None
