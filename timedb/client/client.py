"""The Python client, over Arrow Flight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from timedb.client.connection import BatchSource, Certificates, Connection
from timedb.client.correction_calls import CorrectionCalls
from timedb.client.files import FileCalls
from timedb.client.following import FollowCalls
from timedb.client.lookups import look_up
from timedb.client.parallel import fetch, fetch_parts
from timedb.client.progress import Progress, counting
from timedb.client.read_stream import ReadStream
from timedb.client.run_calls import RunCalls
from timedb.client.selection import Compared, Length, Selection, Time, fields_of, message_of, read_command
from timedb.client.series_calls import SeriesCalls
from timedb.client.sql import stream_sql
from timedb.client.upload_calls import UploadCalls
from timedb.client.writer import Writer
from timedb.contract.errors import InvalidRequest
from timedb.contract.settings import ClientSettings, load_settings
from timedb.contract.wire import (
    AccuracyCommand,
    ApplyRetention,
    CorrectCommand,
    LookupCommand,
    Nothing,
    ReadCommand,
    UploadCommand,
    WireModel,
    parse_object,
)

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self, Unpack
    from uuid import UUID

    import pandas as pd
    import polars as pl

__all__ = ["Client", "Selection", "connect"]


def connect(
    url: str | None = None,
    *,
    api_key: str | None = None,
    timeout: float | None = None,
    stream_timeout: float | None = None,
    keepalive: float | None = None,
    tls_root_certificates: str | None = None,
    tls_client_certificate: str | None = None,
    tls_client_key: str | None = None,
) -> Client:
    """A client of a Flight server. The connection is made at the first call.

    Args:
        url: ``grpc://HOST:PORT`` or ``grpc+tls://HOST:PORT``; else ``TIMEDB_FLIGHT_URL``, else this machine's 8815.
        api_key: Else ``TIMEDB_API_KEY``, else none is sent.
        timeout: Seconds after which a call fails; else ``TIMEDB_TIMEOUT_SECONDS``, else 60.
        stream_timeout: Seconds after which a read's stream, an upload, ``compact`` or ``maintain`` fails, however
            well it goes; else ``TIMEDB_STREAM_TIMEOUT_SECONDS``, else an hour.
        keepalive: Seconds of silence in a call after which the other side is asked for a sign of life; without one the
            call fails 20 seconds later (or as many as these, if that is less). Else ``TIMEDB_KEEPALIVE_SECONDS``, else
            310: a server that is asked more often than every five minutes ends calls that say nothing for long.
        tls_root_certificates: PEM file with the authorities that the server's certificate must be of; else
            ``TIMEDB_TLS_ROOT_CERTIFICATES``, else the system's.
        tls_client_certificate: PEM file with the certificate to show to a server that asks for one; else
            ``TIMEDB_TLS_CLIENT_CERTIFICATE``, else none.
        tls_client_key: PEM file with its private key; else ``TIMEDB_TLS_CLIENT_KEY``.

    Raises:
        InvalidRequest: one of them is not valid.

    Examples:
        >>> with td.connect() as mine:
        ...     mine.health()["ok"]
        True
    """
    settings = load_settings(
        ClientSettings,
        flight_url=url,
        api_key=api_key,
        timeout_seconds=timeout,
        stream_timeout_seconds=stream_timeout,
        keepalive_seconds=keepalive,
        tls_root_certificates=tls_root_certificates,
        tls_client_certificate=tls_client_certificate,
        tls_client_key=tls_client_key,
    )
    connection = Connection.open(
        settings.flight_url,
        settings.timeout_seconds,
        settings.stream_timeout_seconds,
        Certificates.load(settings),
        keepalive_seconds=settings.keepalive_seconds,
    )
    key = None if settings.api_key is None else settings.api_key.get_secret_value()
    return Client(connection.as_caller(key, None))


class Client(SeriesCalls, RunCalls, UploadCalls, FileCalls, CorrectionCalls, FollowCalls):
    """Reads and writes time series. Thread-safe; made by :func:`connect`; a context manager that closes itself.

    Times that go in are aware datetimes or RFC 3339 text with an offset; times that come out are UTC, to the
    microsecond. Every method raises :class:`~timedb.contract.errors.TimeDBError` subclasses.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def __repr__(self) -> str:
        return f"Client({self._connection.url!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, also for those made with :meth:`as_caller`; a second time does nothing."""
        self._connection.flight_client.close()

    def as_caller(self, api_key: str | None, request_id: str | None = None) -> Client:
        """A client that speaks for somebody else over the same connection.

        Args:
            api_key: That caller's key; None sends none, whatever this client sends.
            request_id: Under which the server logs the calls; it makes one where there is none.

        Examples:
            >>> client.as_caller(None, "nightly-7").list_series(name="no such series")
            []
        """
        return Client(self._connection.as_caller(api_key, request_id))

    # The contract as it is: what the methods below, and the REST gateway, are made of.

    def call(self, action: str, message: WireModel) -> dict[str, Any]:
        """Do an action of the contract; one result."""
        return self._connection.call(action, message)

    def stream(self, read: ReadCommand | AccuracyCommand) -> ReadStream:
        """Start a read and get its batches as they arrive."""
        return self._connection.stream(read)

    def send(self, command: UploadCommand | CorrectCommand, reader: BatchSource) -> dict[str, Any]:
        """Send an upload or corrections, once, batch by batch as they are; the receipt of the contract."""
        return self._connection.send(command, reader)

    # Values

    def writer(
        self,
        *,
        workflow_id: str | None = None,
        create_series: bool = True,
        skip_unchanged: bool = False,
        unit: str | None = None,
    ) -> Writer:
        """A writer of many runs over one stream, for those who write often: each is durable before it is answered, and
        they are committed together.

        Leaving its block waits for all runs and raises the first error. Arguments are those of :meth:`upload`, for all
        runs of the writer.

        Examples:
            >>> with client.writer(workflow_id="meters") as writer:
            ...     rows = pl.DataFrame({"series_key": "meter", "valid_time": [day], "value": [21.5]})
            ...     receipt = writer.upload(rows, run_id="meter-1")  # a future
            >>> receipt.result().rows
            1
        """
        return Writer(
            self._connection,
            {
                "workflow_id": workflow_id,
                "create_series": create_series,
                "skip_unchanged": skip_unchanged,
                "unit": unit,
            },
        )

    def read(self, *, parallel: int = 1, progress: Progress = False, **selection: Unpack[Selection]) -> pl.DataFrame:
        """Read values as a Polars frame.

        Args:
            parallel: Streams to fetch the answer over, all of one snapshot. One is fastest for short answers, and for
                servers of two cores; long ones may come sooner over several from a larger server.
            progress: True shows a bar on standard error, if that is a terminal or a notebook; a function is called with
                the rows so far.
            **selection: See :class:`Selection`. Without any it is the flat view of everything.

        Returns:
            Times are ``Datetime("us", "UTC")``. Identifiers (``series_id``, ``series_key``, ``series_unit``,
            ``run_id``, ``changed_by``) are ``Categorical``, which takes a quarter of the memory and filters, groups,
            sorts and joins like text, but joins no text: with ``identifiers="plain"`` they are ``String``, as all else.

        Examples:
            >>> client.read(series_keys="wind", names=True)["series_key", "value"].rows()  # what is known now
            [('wind', 5.5), ('wind', 7.0)]
            >>> client.read(series_keys="wind", end_known=day)["value"].to_list()  # what was known before the day
            [5.0, 6.5]
            >>> client.read(series_keys="wind", view="overlapping").height  # every revision
            4
        """
        import polars as pl

        return pl.DataFrame(self.read_arrow(parallel=parallel, progress=progress, **selection))

    def read_arrow(self, *, parallel: int = 1, progress: Progress = False, **selection: Unpack[Selection]) -> pa.Table:
        """Read values as an Arrow table; arguments as of :meth:`read`.

        Its ``schema.metadata`` has ``table_version``, ``as_of``, the ``token`` that reads the same again (or, as
        ``since``, what follows) and, under a limit, ``cursor``: what goes into ``after`` to go on.

        Examples:
            >>> table = client.read_arrow(series_keys="wind")
            >>> token = table.schema.metadata[b"token"].decode()
            >>> client.read_arrow(series_keys="wind", token=token).equals(table)
            True
        """
        command = read_command(selection)
        if parallel < 1:
            raise InvalidRequest(f"parallel: {parallel} is less than one stream")
        with counting(progress, "Reading") as count:
            if parallel == 1:
                return fetch(self.stream(command), count)
            return fetch_parts(self._connection, command, parallel, count)

    def read_pandas(
        self, *, parallel: int = 1, progress: Progress = False, **selection: Unpack[Selection]
    ) -> pd.DataFrame:
        """Read values as a pandas frame: times are ``datetime64[us, UTC]``, identifiers ``category``.

        Arguments are those of :meth:`read`.

        Raises:
            ModuleNotFoundError: pandas is not installed; it is an extra of this package.

        Examples:
            >>> float(client.read_pandas(series_keys="wind")["value"].mean())
            6.25
        """
        try:
            import pandas  # noqa: F401  # pyarrow's own complaint does not say how to get it
        except ModuleNotFoundError:
            raise ModuleNotFoundError("read_pandas needs pandas: pip install pandas") from None
        return self.read_arrow(parallel=parallel, progress=progress, **selection).to_pandas()

    def sql(self, query: str) -> pl.DataFrame:
        """The answer of a query of SQL, over the tables ``flat``, ``overlapping``, ``values``, ``series`` and ``runs``.

        Raises:
            InvalidRequest: it is no query, or names what there is not.

        Examples:
            >>> client.sql("SELECT max(value) AS most FROM flat WHERE series_key = 'wind'")["most"].to_list()
            [7.0]
        """
        import polars as pl

        return pl.DataFrame(self.stream_sql(query).read_all())

    def stream_sql(self, query: str) -> ReadStream:
        """Run a query as :meth:`sql` does, and get its batches as they arrive."""
        return stream_sql(self._connection, query)

    def lookup(
        self,
        frame: Any,
        *,
        as_of: Time | None = None,
        max_age: Length | None = None,
        corrections: Literal["all", "by_cutoff", "none"] = "all",
    ) -> pl.DataFrame:
        """The value of each row as it was known then: the join of a backtest.

        Args:
            frame: A Polars, pandas or pyarrow table. A row names its series (``series_id``, or ``series_key`` with
                ``labels``, JSON text, beside it), a ``valid_time`` and, for intervals, a ``valid_time_end``; left out
                it means null. ``known_by`` is the cut-off, inclusive; null, or left out, is no cut-off. Other columns
                are not sent.
            as_of: As the lake held it at that change_time; None: now. All rows see one state of the lake.
            max_age: Nothing that was known longer before ``known_by`` than this; a null ``known_by`` has no age.
            corrections: ``by_cutoff``: of corrections and withdrawals those count for a row that were written by its
                ``known_by``, too (all, where that is null). ``none``: everything as first published.

        Returns:
            The frame, its rows in their order, with ``value`` (``Float64``), ``known_time`` (``Datetime("us",
            "UTC")``) of the revision that won, and ``found``: False, and the two null, where nothing was known.

        Raises:
            InvalidRequest: names the column, the row and the value that does not fit.
            NotFound: a series does not exist.

        Examples:
            >>> asked = pl.DataFrame({"series_key": "wind", "valid_time": day, "known_by": [hours[0], None, hours[1]]})
            >>> asked = asked.with_columns(known_by=pl.col("known_by") - timedelta(hours=1))
            >>> client.lookup(asked)["value"].to_list()
            [5.0, 5.5, 5.5]
        """
        asked = {"as_of": as_of, "max_age": max_age, "corrections": corrections}
        return look_up(self._connection, message_of(LookupCommand, asked), frame)

    def accuracy(
        self,
        *,
        horizon: Length,
        actual_id: str | UUID | None = None,
        actual_key: str | None = None,
        **rows: Unpack[Compared],
    ) -> pl.DataFrame:
        """How far forecasts were from what came, and how good their quantiles and ensembles were, by lead time.

        Every revision that the rows select is compared with the actual value at the same valid_time; its lead time is
        ``valid_time - known_time``. The page "Scores of forecasts" has the formulas.

        Args:
            horizon: The length of one bucket of lead times.
            actual_id: The series of actual values; or
            actual_key: its name.
            **rows: The forecasts, and how they are compared; see :class:`Compared`.

        Returns:
            A row a forecast and bucket of lead times (``lead_time``, ``lead_time_end``: ``Duration("us")``; the same in
            seconds): its names, labels (JSON text) and unit, then ``bias, mae, rmse`` (errors are forecast minus
            actual, in the forecast's unit) and of a quantile ``pinball`` and ``coverage``. Siblings together, which
            differ in the label ``quantile`` or ``member`` alone, have rows of their own behind, with ``series_id``
            null: ``wis``, ``crps``, and ``skipped``: how many forecasts were not whole. With a reference ``skill_mae``
            and so on are 1 less the score over that of the reference. Null: there is no such figure.

        Raises:
            InvalidRequest: the units of forecast and actual do not convert into each other, or an option does not fit.
            NotFound: a series does not exist.

        Examples:
            >>> found = client.accuracy(series_keys="wind", actual_key="wind seen", horizon=timedelta(hours=6))
            >>> found["lead_seconds"].to_list(), found["mae"].to_list()
            ([0.0, 21600.0], [0.25, 0.75])

            >>> bands = pl.DataFrame({"quantile": [0.1, 0.5, 0.9], "value": [5.0, 5.75, 6.5]})
            >>> bands = bands.with_columns(series_key=pl.lit("wind band"), valid_time=day)
            >>> issued = day - timedelta(hours=3)
            >>> receipt = client.upload(bands, run_id="band-1", run_start_time=issued, known_time=issued)
            >>> asked = {"series_keys": "wind band", "actual_key": "wind seen", "reference_key": "wind"}
            >>> found = client.accuracy(horizon="6h", **asked)  # the quantiles, each for itself and together
            >>> found.filter(pl.col("series_id").is_null()).select(pl.col("wis", "skill_wis").round(3), "count").rows()
            [(0.1, 0.6, 1)]
        """
        import polars as pl

        named: dict[str, Any] = {"horizon": horizon, "actual_id": actual_id, "actual_key": actual_key}
        with self.stream(message_of(AccuracyCommand, named | fields_of(rows))) as stream:
            return pl.DataFrame(stream.read_all())

    # The service

    def status(self) -> dict[str, Any]:
        """Figures of the lake.

        Examples:
            >>> client.status()["series"] >= 1
            True
        """
        return self.call("status", Nothing())

    def health(self) -> dict[str, Any]:
        """``{"ok": True}`` if the server answers; needs no key."""
        return self.call("health", Nothing())

    def compact(self) -> dict[str, Any]:
        """Sort and settle what was uploaded since the last time; says what was done."""
        return self.call("compact", Nothing())

    def maintain(self) -> dict[str, Any]:
        """Compact, checkpoint, clean the log, remove dead files; says what was done."""
        return self.call("maintain", Nothing())

    def apply_retention(self, rules: list[dict[str, Any]], *, dry_run: bool = True) -> dict[str, Any]:
        """Remove values and revisions that rules do not keep, or (``dry_run``) tell what they would remove.

        Args:
            rules: The fields of :class:`timedb.contract.wire.RetentionRule` each.
            dry_run: Change nothing.

        Returns:
            What went, or would go, by rule and series.

        Examples:
            >>> client.apply_retention([{"name": "wind", "drop_after_days": 365}])["dry_run"]
            True
        """
        return self.call("apply_retention", parse_object(ApplyRetention, {"rules": rules, "dry_run": dry_run}))
