"""One caller's use of a connection: the three kinds of call that the contract knows, with our errors."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import flight

from timedb.client.flight_errors import flight_errors
from timedb.client.read_stream import ReadStream, TokenStream
from timedb.contract.errors import Internal, InvalidRequest
from timedb.contract.hosts import is_loopback_url
from timedb.contract.message_sizes import MESSAGE_BYTES_ASKED, MESSAGE_BYTES_HEADER, joined
from timedb.contract.settings import ClientSettings, read_setting_file
from timedb.contract.waiting import wait_in_slices
from timedb.contract.wire import (
    AccuracyCommand,
    AccuracyTicket,
    CommitMarker,
    CorrectCommand,
    FollowTicket,
    ReadCommand,
    ReadTicket,
    UploadCommand,
    WireModel,
    quoted,
)

__all__ = ["BatchSource", "Certificates", "Connection"]

_LONG_ACTIONS = frozenset({"apply_retention", "compact", "maintain"})
_WRITE_ACTIONS = frozenset(
    {"create_many_series", "create_series", "update_series", "update_values", "withdraw_run", "restore_run"}
)
# A server that comes back is found again at once, not after gRPC's two minutes.
_OPTIONS = (("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 2000))
_GIVE_UP_SECONDS = 5.0
# How long a sign of life may take, once the client has asked for one.
_SIGN_OF_LIFE_SECONDS = 20.0
_MAX_HEADER_CHARS = 1024
_MESSAGE_BYTES = (MESSAGE_BYTES_HEADER.encode(), str(MESSAGE_BYTES_ASKED).encode())


class BatchSource(Protocol):
    """What is sent: batches of one schema, such as a ``pa.RecordBatchReader``."""

    @property
    def schema(self) -> pa.Schema:
        """The schema of all batches."""

    def __iter__(self) -> Any:
        """Iterate over ``pa.RecordBatch``, each once."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """What TLS needs of a client, PEM each.

    Attributes:
        roots: Authorities that the server's certificate must be of; None: the system's.
        chain: The certificate to show to a server that asks for one.
        key: Its private key.
    """

    roots: bytes | None = None
    chain: bytes | None = None
    key: bytes | None = field(default=None, repr=False)

    @classmethod
    def load(cls, settings: ClientSettings) -> Certificates:
        """Read the files that the settings name.

        Raises:
            InvalidRequest: one of them is not what it should be.
        """
        roots, chain, key = settings.tls_root_certificates, settings.tls_client_certificate, settings.tls_client_key
        if (chain is None) != (key is None):
            raise InvalidRequest(
                "TIMEDB_TLS_CLIENT_CERTIFICATE, TIMEDB_TLS_CLIENT_KEY: a client's certificate goes with its key"
            )
        certificates = cls(
            None if roots is None else read_setting_file("tls_root_certificates", roots),
            None if chain is None else read_setting_file("tls_client_certificate", chain),
            None if key is None else read_setting_file("tls_client_key", key),
        )
        _try_out(roots, chain, key)
        return certificates


def _try_out(roots: str | None, chain: str | None, key: str | None) -> None:
    """What is wrong with the files gRPC would only tell its own log."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        if roots is not None:
            context.load_verify_locations(roots)
    except ssl.SSLError:
        raise InvalidRequest(f"TIMEDB_TLS_ROOT_CERTIFICATES: {quoted(roots)} holds no PEM certificate") from None
    try:
        if chain is not None:
            context.load_cert_chain(chain, key, password="")
    except (ssl.SSLError, ValueError):
        raise InvalidRequest(
            f"TIMEDB_TLS_CLIENT_CERTIFICATE, TIMEDB_TLS_CLIENT_KEY: {quoted(chain)} and {quoted(key)} are no "
            "certificate and its unencrypted private key, both PEM"
        ) from None


@dataclass(frozen=True, slots=True)
class Connection:
    """A Flight connection and the caller that uses it; several callers may share one. Thread-safe.

    Attributes:
        url: The server.
        flight_client: The connection itself.
        timeout_seconds: For calls.
        stream_timeout_seconds: For streams in either direction, and for actions that take long.
        headers: Sent with every call.
    """

    url: str
    flight_client: flight.FlightClient
    timeout_seconds: float
    stream_timeout_seconds: float
    headers: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)

    @classmethod
    def open(
        cls,
        url: str,
        timeout_seconds: float,
        stream_timeout_seconds: float,
        certificates: Certificates | None = None,
        *,
        keepalive_seconds: float | None = None,
    ) -> Connection:
        """Prepare a connection; it is made at the first call.

        With ``keepalive_seconds``, calls to a server that has gone silent fail before their timeout.

        Raises:
            InvalidRequest: the URL is not one of a Flight server.
        """
        certificates = certificates or Certificates()
        options = [*_OPTIONS, *_keepalive(keepalive_seconds)]
        if is_loopback_url(url):
            options.append(("grpc.enable_http_proxy", 0))
        try:
            if not url.startswith("grpc+unix:") and not urlsplit(url).hostname:
                raise ValueError("names no host")
            client = flight.FlightClient(
                url,
                tls_root_certs=certificates.roots,
                cert_chain=certificates.chain,
                private_key=certificates.key,
                generic_options=options,
            )
        except (pa.ArrowException, OSError, ValueError):
            raise InvalidRequest(
                f"url: {quoted(url)} is not one of a Flight server, such as grpc://HOST:8815"
            ) from None
        return cls(url, client, timeout_seconds, stream_timeout_seconds)

    def as_caller(self, api_key: str | None, request_id: str | None) -> Connection:
        """The same connection for a caller with this key, or with none."""
        sent = (("x-api-key", api_key), ("x-request-id", request_id))
        return replace(self, headers=tuple((name.encode(), _header(text)) for name, text in sent if text))

    def call(self, action: str, message: WireModel) -> dict[str, Any]:
        """Do an action.

        Returns:
            Its result.

        Raises:
            TimeDBError: what the server says, or what became of the connection.
        """
        options = self.options(long=action in _LONG_ACTIONS)
        with flight_errors(self.url, acted=action in _WRITE_ACTIONS):
            results = list(self.flight_client.do_action(flight.Action(action, message.to_bytes()), options))
        if not results:
            raise Internal(f"{action}: no result")
        return joined(_json_object(result.body, action) for result in results)

    def stream(self, read: ReadCommand | AccuracyCommand) -> ReadStream:
        """Start a read.

        Raises:
            TimeDBError: as :meth:`call`; the stream raises them too.
        """
        return self.stream_of(_ticket(read))

    def stream_of(self, ticket: bytes) -> ReadStream:
        """Start a read whose ticket is there already, as :meth:`plan` gives them."""
        with flight_errors(self.url):
            reader = self.flight_client.do_get(flight.Ticket(ticket), self.options(long=True))
        return ReadStream(reader, self.url)

    def follow(self, ticket: FollowTicket) -> TokenStream:
        """Start to follow; the limits of time of calls and streams are not for it.

        Raises:
            TimeDBError: as :meth:`call`; the stream raises them, too.
        """
        options = flight.FlightCallOptions(headers=[*self.headers, _MESSAGE_BYTES])
        with flight_errors(self.url):
            reader = self.flight_client.do_get(flight.Ticket(ticket.to_bytes()), options)
        return TokenStream(reader, self.url)

    def plan(self, read: ReadCommand | AccuracyCommand) -> flight.FlightInfo:
        """Have the server plan a read: an endpoint a part, all of one snapshot.

        Raises:
            TimeDBError: as :meth:`call`.
        """
        descriptor = flight.FlightDescriptor.for_command(_ticket(read))
        with flight_errors(self.url):
            return self.flight_client.get_flight_info(descriptor, self.options(long=False))

    def send(self, command: UploadCommand | CorrectCommand, batches: BatchSource) -> dict[str, Any]:
        """Send an upload, or a table of corrections, and wait for its receipt.

        What iterating over ``batches`` raises passes through, and nothing is written then.

        Returns:
            The receipt as the contract has it.

        Raises:
            TimeDBError: as :meth:`call`; ``outcome_unknown`` if the connection is lost after the last row.
        """
        descriptor = flight.FlightDescriptor.for_command(command.to_bytes())
        with flight_errors(self.url):
            writer, metadata = self.flight_client.do_put(descriptor, batches.schema, self.options(long=True))
        answers = _Answers(metadata)
        try:
            # Where the command states the rows, the server may take the last of them for the end.
            rows = self._write_all(writer, batches, may_commit=command.rows is not None)
            with flight_errors(self.url, acted=True):
                if rows != command.rows:  # else that has been said
                    writer.write_metadata(CommitMarker(commit=True, rows=rows).to_bytes())
                writer.done_writing()
                wait_in_slices(answers.wait)
                writer.close()  # now the server's verdict is known: the metadata just ends, also where it failed
                return answers.receipt(self.url)
        except BaseException:
            self._give_up(writer, answers)
            raise

    def _write_all(
        self, writer: flight.FlightStreamWriter, batches: Iterable[pa.RecordBatch], *, may_commit: bool
    ) -> int:
        rows = 0
        for batch in batches:
            with flight_errors(self.url, acted=may_commit):
                writer.write_batch(batch)
            rows += batch.num_rows
        return rows

    def _give_up(self, writer: flight.FlightStreamWriter, answers: _Answers) -> None:
        # Without the marker the server drops what it has; it must learn that no more is coming. Where the call is over
        # already, the caller is about to hear why.
        with suppress(pa.ArrowException, OSError):
            writer.done_writing()
            if answers.wait(_GIVE_UP_SECONDS):
                writer.close()

    def options(self, *, long: bool) -> flight.FlightCallOptions:
        """What goes with every call; ``long``: one whose time is that of a stream."""
        timeout = self.stream_timeout_seconds if long else self.timeout_seconds
        return flight.FlightCallOptions(timeout=timeout, headers=[*self.headers, _MESSAGE_BYTES])


class _Answers:
    """Reads an upload's metadata beside the writing, as a server whose progress nobody reads stops reading too."""

    def __init__(self, metadata: flight.FlightMetadataReader) -> None:
        self._metadata = metadata
        self._receipt: list[dict[str, Any]] = []
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._read, name="timedb-upload-answers", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while (message := self._metadata.read()) is not None:
                answer = _json_object(message, "receipt")
                if answer.keys() != {"received"}:  # which is progress
                    self._receipt.append(answer)
        except Exception as error:
            self._failure = error

    def wait(self, seconds: float) -> bool:
        """Wait until there are no more; False if that took longer than ``seconds``."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def receipt(self, url: str) -> dict[str, Any]:
        """The receipt, once there are no more answers; raises what reading them failed with."""
        if self._failure is not None:
            raise self._failure
        if not self._receipt:
            raise Internal(f"the Flight server at {url} ended the upload without a receipt")
        return joined(self._receipt)


def _ticket(read: ReadCommand | AccuracyCommand) -> bytes:
    # Its fields have been checked; only the op is added.
    model, op = (ReadTicket, "read") if isinstance(read, ReadCommand) else (AccuracyTicket, "accuracy")
    fields = {name: getattr(read, name) for name in read.model_fields_set}
    return model.model_construct(**fields | {"op": op}).to_bytes()


def _json_object(body: pa.Buffer, what: str) -> dict[str, Any]:
    try:
        answer = json.loads(body.to_pybytes())
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise Internal(f"{what}: the answer is not a JSON object")
    return answer


def _keepalive(seconds: float | None) -> list[tuple[str, int]]:
    """gRPC's options for asking a silent peer, while a call is open, whether it is still there."""
    if seconds is None:
        return []
    millis, patience = int(seconds * 1000), int(min(seconds, _SIGN_OF_LIFE_SECONDS) * 1000)
    # Of the two limits on the answer gRPC waits for the longer one, whose default is a minute.
    return [
        ("grpc.keepalive_time_ms", millis),
        ("grpc.keepalive_timeout_ms", patience),
        ("grpc.http2.ping_timeout_ms", patience),
    ]


def _header(text: str) -> bytes:
    # gRPC fails the whole call over a value that it cannot carry; a server knows no key with a "?" in its place.
    return "".join(char if "!" <= char <= "~" else "?" for char in text.strip()[:_MAX_HEADER_CHARS]).encode()
