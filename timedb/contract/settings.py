"""Settings as data: name, default, unit (in the name) and help in one place; ``TIMEDB_<NAME>`` in the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from timedb.contract.errors import InvalidRequest
from timedb.contract.json_counts import MAX_JSON_VALUES
from timedb.contract.wire import quoted

__all__ = ["ClientSettings", "ServerSettings", "load_settings", "local_path", "read_setting_file"]

S = TypeVar("S", bound=BaseSettings)
_CONFIG = SettingsConfigDict(env_prefix="TIMEDB_", frozen=True, extra="ignore", populate_by_name=True)


class ServerSettings(BaseSettings):
    """What a server process is told. Every limit has a unit in its name."""

    model_config = _CONFIG

    lake: str = Field("./timedb-data", description="Where the lake is: a folder or s3://, az://, gs://")
    host: str = Field("127.0.0.1", description="Address that both servers listen on")
    flight_port: int = Field(8815, ge=0, le=65535, description="Port of the Flight server; 0 takes a free one")
    rest_port: int = Field(8000, ge=0, le=65535, description="Port of the REST gateway; 0 takes a free one")
    flight_url: str | None = Field(
        None, description="Flight server of a gateway that runs alone; none: an embedded one"
    )
    tls_certificate: str | None = Field(
        None, description="PEM file with the servers' certificate chain; with it both speak TLS"
    )
    tls_key: str | None = Field(None, description="PEM file with the private key of that certificate")
    tls_client_ca: str | None = Field(
        None, description="PEM file with the authorities of which every client must show a certificate"
    )
    insecure: bool = Field(False, description="Serve other machines although the lake has no users")
    audit_log: str | None = Field(
        None, description="File to which the commands append the audit log, a JSON object a line; none: the other log"
    )
    log_level: str = Field("info", description="debug, info, warning or error")
    log_format: Literal["text", "json"] = Field("text", description="text, or json for an object a line")
    metrics_host: str = Field("127.0.0.1", description="Address that the port for Prometheus listens on")
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="Port for Prometheus: figures of all tenants, without a key; none: closed"
    )

    bucket_digits: Literal["1", "2", "3", "full"] = Field(
        "1",
        description="Hex digits of a series id that name its bucket, fixed when the lake is made; full for few series",
    )

    group_access: Literal["none", "read", "write"] = Field(
        "none",
        description="What the group of a new lake's folder may do with its files: none, read (to read) or write "
        "(to run another server on it); others may do nothing",
    )

    max_upload_rows: int = Field(50_000_000, ge=1, description="Rows of one upload")
    max_upload_bytes: int = Field(4 << 30, ge=1, description="Arrow bytes of one upload")
    max_message_bytes: int = Field(16 << 20, ge=1, description="Bytes of a ticket, command or action body")
    max_body_bytes: int = Field(32 << 20, ge=1, description="Bytes of one REST request body")
    max_json_values: int = Field(
        MAX_JSON_VALUES, ge=1000, description="Values of one JSON message or body; a fourth of them may be objects"
    )
    max_upload_columns: int = Field(1024, ge=1, description="Columns of one REST body")
    max_head_seconds: float = Field(10.0, gt=0, description="Seconds in which the head of a REST call has to arrive")
    max_body_seconds: float = Field(300.0, gt=0, description="Seconds in which the body of a REST call has to arrive")
    max_body_idle_seconds: float = Field(
        10.0, gt=0, description="Seconds for which nothing more of the body of a REST call may come"
    )
    max_rest_connections: int = Field(
        1000, ge=1, description="Connections of the REST gateway; half the files that the process may open at most"
    )
    max_rest_calls: int = Field(256, ge=1, description="REST calls that may wait for the Flight server at once")
    cors_origins: str = Field(
        "", description="Web origins whose pages may call the REST gateway, with a comma between them; * for all"
    )
    allowed_hosts: str = Field(
        "",
        description="Further names by which a lake without users may be called over REST (Host), with a comma between "
        "them; * for all",
    )
    max_sorted_rows: int = Field(20_000_000, ge=1, description="Rows that a read may sort across buckets")
    max_fill_rows: int = Field(
        5_000_000, ge=0, description="Rows that a resampled read may add for periods without a value"
    )
    max_pivot_columns: int = Field(1000, ge=1, description="Columns of values of one wide answer")
    max_lookup_batch_rows: int = Field(1_000_000, ge=1, description="Rows of one batch of a lookup")
    lookup_stored_rows: int = Field(
        4_000_000, ge=1, description="Stored rows that a lookup has in memory at once, about"
    )
    max_queued_writes: int = Field(1024, ge=1, description="Writes of a tenant that may wait for their commit")
    max_append_in_flight: int = Field(
        4096, ge=1, description="Runs of all streams of append together that may wait for their answers"
    )
    max_append_in_flight_per_stream: int = Field(
        256, ge=1, description="Runs of one stream of append that may wait for their answers; further ones are not read"
    )
    max_append_bytes: int = Field(
        256 << 20, ge=1, description="Arrow bytes of the runs of all streams of append together that may wait"
    )
    max_append_bytes_per_stream: int = Field(
        64 << 20, ge=1, description="Arrow bytes of the runs of one stream of append that may wait, and of one such run"
    )
    max_concurrent_reads: int = Field(32, ge=1, description="Reads that may run at once")
    max_concurrent_reads_per_tenant: int = Field(24, ge=1, description="Reads of one tenant that may run at once")
    max_concurrent_uploads: int = Field(64, ge=1, description="Uploads that may be received at once")
    max_concurrent_uploads_per_tenant: int = Field(
        48, ge=1, description="Uploads of one tenant that may be received at once"
    )
    max_concurrent_calls: int = Field(128, ge=1, description="Other calls (actions, plans) that may run at once")
    max_concurrent_calls_per_tenant: int = Field(96, ge=1, description="Other calls of one tenant that may run at once")
    max_open_streams: int = Field(
        256, ge=1, description="Uploads and lookups over Flight that may be open at once, whether they send or wait"
    )
    max_open_streams_per_tenant: int = Field(192, ge=1, description="Those of one tenant that may be open at once")
    max_followers: int = Field(
        128, ge=1, description="Streams of follow over Flight that may be open at once; each has a thread"
    )
    max_followers_per_tenant: int = Field(96, ge=1, description="Those of one tenant that may be open at once")
    max_rest_followers: int = Field(
        500,
        ge=1,
        description="Calls of GET /changes that may wait at a REST gateway at once; half its connections at most",
    )
    follow_heartbeat_seconds: float = Field(
        15.0, gt=0, le=15.0, description="Seconds after which who follows hears that there is nothing new"
    )
    follow_look_seconds: float = Field(
        0.5, gt=0, description="Seconds between two looks, of all who follow a tenant, for what other servers committed"
    )
    max_call_seconds: float = Field(3600.0, gt=0, description="Seconds that one read or upload may take")
    max_concurrent_sql: int = Field(8, ge=1, description="SQL queries that may run at once")
    max_concurrent_sql_per_tenant: int = Field(6, ge=1, description="SQL queries of one tenant that may run at once")
    sql_wait_seconds: float = Field(
        10.0, ge=0, description="Seconds that a SQL query waits for its turn before it is told to retry"
    )
    max_sql_bytes: int = Field(256 << 10, ge=1, description="Bytes of the text of a SQL query")
    sql_seconds: float = Field(
        120.0, gt=0, description="Seconds that one SQL query may take, the delivery of its answer included"
    )
    sql_memory_bytes: int = Field(
        512 << 20, ge=64 << 20, description="Bytes of memory that one SQL query may take, in a process of its own"
    )
    sql_rows: int = Field(10_000_000, ge=1, description="Rows that one SQL query may answer")
    sql_threads: int = Field(2, ge=1, description="Threads that one SQL query may use")
    max_idle_seconds: float = Field(
        120.0, gt=0, description="Seconds that a read or upload waits for its client before another gets its place"
    )
    stuck_seconds: float = Field(
        60.0, gt=0, description="Seconds that a write may wait for its commit before health says that it does not work"
    )
    max_clock_skew_seconds: float = Field(
        600.0,
        gt=0,
        description="Seconds that this server's clock may be wrong, as far as is known, and still stamp writes",
    )
    upload_chunk_rows: int = Field(500_000, ge=1, description="Rows of an upload that wait in memory")
    bulk_rows: int = Field(50_000, ge=1, description="Rows from which an upload gets files of its own")
    group_rows: int = Field(500_000, ge=1, description="Rows of waiting small uploads that one commit takes")
    mixed_rows: int = Field(
        10_000, ge=0, description="Rows of a commit up to which they are written as one file, whatever their series"
    )
    mixed_files: int = Field(24, ge=2, description="Small files of such commits that are gathered into one")
    move_rows: int = Field(65_536, ge=1, description="Rows of such files that start their move into their buckets")
    records_seconds: float = Field(
        1.0,
        gt=0,
        description="Seconds within which the tables runs and updates follow the values",
    )
    compact_fresh_files: int = Field(8, ge=1, description="Fresh files of a bucket that start its compaction")
    compact_fresh_rows: int = Field(2_000_000, ge=1, description="Fresh rows of a bucket that start its compaction")
    compact_input_rows: int = Field(500_000, ge=1, description="Rows that compaction works on at once, about")
    compact_file_rows: int = Field(2_000_000, ge=1, description="Rows of a compacted file, about")
    memory_limit_mb: int | None = Field(
        None,
        ge=256,
        description="MiB of memory that a server may take; none: three quarters of what the machine, or its control "
        "group, has",
    )
    memory_wait_seconds: float = Field(
        30.0, ge=0, description="Seconds that a call waits for memory that others hold before it is told to retry"
    )
    read_slice_rows: int | None = Field(
        None, ge=1, description="Rows that a read works on at once, about; none: as many as the memory is for"
    )
    read_cache_bytes: int | None = Field(
        None,
        ge=0,
        description="Bytes of decoded rows that all tenants together keep in memory; none: an eighth of the memory, "
        "at most 256 MiB",
    )
    max_converted_rows: int = Field(
        20_000_000, ge=1, description="Rows of the files that a conversion of a series to another unit writes anew"
    )
    max_windows: int = Field(10_000_000, ge=1, description="Windows of a relative read in its general form")
    maintenance_seconds: float = Field(0.5, gt=0, description="Seconds between two looks at what needs maintenance")
    retention_hours: float = Field(24, gt=0, description="Hours that replaced files stay for readers that may use them")
    log_retention_hours: float = Field(
        24, gt=0, description="Hours that commits stay in the log after a checkpoint; at least retention_hours"
    )
    checkpoint_commits: int = Field(100, ge=2, description="Commits of a table after which it is checkpointed")
    shutdown_seconds: float = Field(10.0, ge=0, description="Seconds that calls in flight get when the server stops")

    @property
    def http_scheme(self) -> str:
        """What the URL of the REST gateway begins with."""
        return "http" if self.tls_certificate is None else "https"


class ClientSettings(BaseSettings):
    """What a client finds in the environment when the caller says nothing."""

    model_config = _CONFIG

    flight_url: str = Field("grpc://127.0.0.1:8815", description="Flight server")
    api_key: SecretStr | None = Field(None, description="API key sent with every call")
    tls_root_certificates: str | None = Field(
        None, description="PEM file with the authorities that a server's certificate must be of; none: the system's"
    )
    tls_client_certificate: str | None = Field(
        None, description="PEM file with the certificate chain to show to servers that ask for one"
    )
    tls_client_key: str | None = Field(None, description="PEM file with the private key of that certificate")
    timeout_seconds: float = Field(60.0, gt=0, description="Seconds after which a call fails")
    stream_timeout_seconds: float = Field(
        3600.0, gt=0, description="Seconds after which a read's stream, an upload or a compaction fails"
    )
    keepalive_seconds: float = Field(
        310.0,
        ge=1,
        le=86_400,
        description="Seconds of silence in a call after which the client asks the other side for a sign of life; 20 s "
        "later it gives the connection up. A TimeDB server that is asked more often than every 5 minutes ends calls "
        "that say nothing for long: take less only behind a proxy that answers for it",
    )


def load_settings(cls: type[S], **overrides: object) -> S:
    """Build settings: ``overrides`` that are not None, then the environment, then the defaults.

    Raises:
        InvalidRequest: names the setting and the value that does not fit.
    """
    try:
        given: dict[str, Any] = {name: value for name, value in overrides.items() if value is not None}
        return cls(**given)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = "TIMEDB_" + "_".join(str(part) for part in fault["loc"]).upper()
        value = "***" if name == "TIMEDB_API_KEY" else quoted(fault["input"])
        raise InvalidRequest(f"{name}: {value}: {fault['msg']}") from None


def read_setting_file(name: str, path: str) -> bytes:
    """The content of a file that a setting names.

    Raises:
        InvalidRequest: it cannot be read; names the setting and the path.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"TIMEDB_{name.upper()}: {quoted(path)} cannot be read: {error.strerror}") from None


def local_path(uri: str) -> Path | None:
    """The folder that a lake's address names, or None for an object store.

    Raises:
        InvalidRequest: a ``file://`` address without an absolute path, or of another machine.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Path(uri).expanduser()
    if scheme != "file":
        return None
    host, slash, _ = rest.partition("/")
    if not slash or host not in ("", "localhost"):
        raise InvalidRequest(
            f"{quoted(uri)} names no folder of this machine: write file:///absolute/path, or the path alone"
        )
    return Path("/" + rest.removeprefix(host).lstrip("/"))
