"""Readers: every answer is compared with what the ledger says at the answer's own cut-off."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from typing import Any

import adbc_driver_flightsql.dbapi as adbc
import httpx
import polars as pl
import pyarrow as pa
from pyarrow import flight

from tests.behaviour.oracle import HOUR
from tests.soak.ledger import COLUMNS, GATE, LEAD_HOURS, Auditor, Ledger, comparable, difference
from tests.soak.work import Work, Worker
from tests.soak.writing import START, TIME, connection, micros
from timedb.contract.columns import META_AS_OF, META_TOKEN
from timedb.contract.times import format_time, from_micros, parse_time

WANTED = ["change_time" if name == "change_rank" else name for name in COLUMNS]
SLOT_VALUE = ["series_id", "valid_time", "valid_time_end", "value"]
SPAN = 100
MAX_TOKENS = 50


class Reader(Worker):
    """Reads in every way there is."""

    def __init__(self, work: Work, seed: int, seconds: float) -> None:
        super().__init__(work, seed, seconds)
        self.auditor = Auditor()
        self.http = httpx.Client(base_url=work.rest_url, timeout=60)
        self.flight = flight.connect(work.flight_url)
        self.sql = adbc.connect(work.flight_url, autocommit=True)

    def leave(self) -> None:
        """Close all connections."""
        self.http.close()
        self.flight.close()
        self.sql.close()

    def operations(self) -> Mapping[Callable[[], None], int]:
        """All."""
        return {
            self.read_flat: 6,
            self.read_overlapping: 6,
            self.read_all_versions: 3,
            self.read_as_of: 4,
            self.read_by_token: 4,
            self.read_changes: 3,
            self.read_latest: 3,
            self.read_relative: 2,
            self.read_lead_time: 2,
            self.read_in_parallel: 2,
            self.read_ordered_pages: 1,
            self.read_bulk: 3,
            self.read_over_a_new_connection: 3,
            self.look_up: 3,
            self.ask_sql_by_adbc: 2,
            self.ask_sql_by_flight: 1,
            self.read_json: 3,
            self.read_csv: 2,
            self.read_arrow_over_rest: 2,
        }

    def some(self) -> tuple[Ledger, list[str], dict[str, int]]:
        """A ledger, some of its series, a range of valid times."""
        ledger = self.chance.choice(self.work.ledgers)
        first = self.chance.randint(max(0, ledger.hours - 400), ledger.hours)
        ids = self.chance.sample(ledger.ids, self.chance.randint(1, len(ledger.ids)))
        return ledger, ids, {"start_valid": START + first * HOUR, "end_valid": START + (first + SPAN) * HOUR}

    def _check(
        self, ledger: Ledger, ids: list[str], answer: pa.Table | pl.DataFrame, as_of: int, what: Any, **expected: Any
    ) -> None:
        columns = expected.get("columns", COLUMNS)
        frame = answer if isinstance(answer, pl.DataFrame) else pl.DataFrame(answer)
        truth = self.auditor.answer(ledger.rows(), ids, as_of=as_of, **expected)
        fault = difference(comparable(frame, columns), truth)
        if fault is not None:
            self.work.fault(f"{what} of {ids} with {expected} as of {as_of}: {fault}")

    def _read(self, *, client: Any = None, parallel: int = 1, fields: Any = None, **expected: Any) -> None:
        ledger, ids, bounds = self.some()
        self._read_of(ledger, ids, bounds, client=client, parallel=parallel, fields=fields, **expected)

    def _read_of(
        self,
        ledger: Ledger,
        ids: list[str],
        bounds: dict[str, int],
        *,
        client: Any = None,
        parallel: int = 1,
        fields: Any = None,
        as_of: int | None = None,
        **expected: Any,
    ) -> None:
        asked = {name: from_micros(value) for name, value in bounds.items()} | (fields or {})
        asked |= {name: expected[name] for name in ("view", "all_versions") if name in expected}
        if as_of is not None:
            asked["as_of"] = from_micros(as_of)
        answer = (client or self.client).read_arrow(parallel=parallel, series_ids=ids, columns=WANTED, **asked)
        seen = micros(parse_time(answer.schema.metadata[META_AS_OF].decode()))
        if as_of is not None and seen > as_of:
            self.work.fault(f"read as of {as_of} answers as of {seen}")
        token = answer.schema.metadata[META_TOKEN].decode()
        ledger.tokens.append((token, seen))
        del ledger.tokens[:-MAX_TOKENS]
        self._check(ledger, ids, answer, as_of or seen, asked, **bounds, **expected)

    def read_flat(self) -> None:
        """Flat, sometimes as known by a moment."""
        if self.chance.random() < 0.5:
            self._read()
        else:
            ledger, ids, bounds = self.some()
            self._read_of(ledger, ids, bounds | {"end_known": START + self.chance.randint(1, 200) * HOUR})

    def read_overlapping(self) -> None:
        """Overlapping, at times compressed."""
        self._read(view="overlapping", fields={"compression": self.chance.choice([None, "lz4", "zstd"])})

    def read_all_versions(self) -> None:
        """Every version."""
        self._read(view=self.chance.choice(["flat", "overlapping"]), all_versions=True)

    def read_as_of(self) -> None:
        """As the lake was at an earlier answer."""
        ledger, ids, bounds = self.some()
        if ledger.tokens:
            _, as_of = self.chance.choice(list(ledger.tokens))
            self._read_of(ledger, ids, bounds, as_of=as_of, view=self.chance.choice(["flat", "overlapping"]))

    def read_by_token(self) -> None:
        """Exactly what an earlier answer could see."""
        ledger, ids, bounds = self.some()
        if ledger.tokens:
            token, as_of = self.chance.choice(list(ledger.tokens))
            asked: dict[str, Any] = {name: from_micros(value) for name, value in bounds.items()}
            answer = self.client.read_arrow(view="overlapping", token=token, series_ids=ids, columns=WANTED, **asked)
            self._check(ledger, ids, answer, as_of, "token", view="overlapping", **bounds)

    def read_changes(self) -> None:
        """What was written since an earlier answer."""
        ledger, ids, bounds = self.some()
        if ledger.tokens:
            token, since = self.chance.choice(list(ledger.tokens))
            self._read_of(ledger, ids, bounds, view="changes", since=since, fields={"since": token})

    def read_latest(self) -> None:
        """The last value of each series."""
        ledger, ids, _ = self.some()
        self._read_of(ledger, ids, {}, view="latest")

    def read_relative(self) -> None:
        """The day-ahead gate."""
        self._read(relative=True, fields={"relative": GATE})

    def read_lead_time(self) -> None:
        """What was known some hours before."""
        self._read(lead=True, fields={"lead_time": f"{LEAD_HOURS}h"})

    def read_in_parallel(self) -> None:
        """Over several streams of one plan."""
        self._read(view="overlapping", parallel=3)

    def read_ordered_pages(self) -> None:
        """Page after page: all at the cut-off of the first."""
        ledger, ids, bounds = self.some()
        asked: dict[str, Any] = {name: from_micros(value) for name, value in bounds.items()}
        asked |= {"series_ids": ids, "columns": WANTED, "limit": 97, "order_by": "valid_time"}
        pages = [self.client.read_arrow(**asked)]
        while cursor := pages[-1].schema.metadata.get(b"cursor"):
            pages.append(self.client.read_arrow(after=cursor.decode(), **asked))
        seen = micros(parse_time(pages[0].schema.metadata[META_AS_OF].decode()))
        frame = pl.concat([comparable(pl.DataFrame(page)) for page in pages]).sort(COLUMNS, nulls_last=True)
        self._check(ledger, ids, frame, seen, "pages", **bounds)

    def read_bulk(self) -> None:
        """Large answers: all series of the large runs."""
        ledger = self.work.bulk
        if ledger is not None and ledger.hours:
            first = self.chance.randint(0, ledger.hours)
            bounds = {"start_valid": START + first * HOUR, "end_valid": START + (first + 300) * HOUR}
            self._read_of(ledger, ledger.ids, bounds, view=self.chance.choice(["flat", "overlapping"]))

    def read_over_a_new_connection(self) -> None:
        """Connect, read, leave."""
        with connection(self.work) as client:
            self._read(client=client)

    def look_up(self) -> None:
        """The join of a backtest, over do_exchange, as of an earlier answer."""
        ledger, ids, bounds = self.some()
        if not ledger.tokens:
            return
        _, as_of = self.chance.choice(list(ledger.tokens))
        hours = range(0, SPAN, 3)
        known_by = START + self.chance.randint(1, 200) * HOUR
        asked = pl.DataFrame({"series_id": ids}).join(
            pl.DataFrame({"valid_time": [bounds["start_valid"] + hour * HOUR for hour in hours]}), how="cross"
        )
        interval = pl.col("series_id").is_in([ledger.series[name] for name in ledger.series if int(name[-1]) % 2 == 0])
        asked = asked.with_columns(
            pl.when(interval).then(pl.col("valid_time") + HOUR).alias("valid_time_end"),
            pl.lit(known_by, pl.Int64).alias("known_by"),
        )
        times = pl.col("valid_time", "valid_time_end", "known_by").cast(TIME)
        found = self.client.lookup(asked.with_columns(times), as_of=from_micros(as_of))
        known = comparable(found.filter("found"), SLOT_VALUE)
        self._check_found(ledger, ids, asked, known, as_of, bounds | {"end_known": known_by + 1})

    def _check_found(
        self, ledger: Ledger, ids: list[str], asked: pl.DataFrame, known: pl.DataFrame, as_of: int, bounds: Any
    ) -> None:
        truth = self.auditor.answer(ledger.rows(), ids, as_of=as_of, columns=SLOT_VALUE, **bounds)
        truth = truth.join(asked, on=SLOT_VALUE[:3], how="semi", nulls_equal=True)
        fault = difference(known, truth.sort(SLOT_VALUE, nulls_last=True))
        if fault is not None:
            self.work.fault(f"lookup as of {as_of}: {fault}")

    def _sql(self, ids: list[str], bounds: dict[str, int]) -> str:
        times = ", ".join(f"'{format_time(from_micros(bounds[name]))}'::TIMESTAMPTZ" for name in sorted(bounds))
        end, start = times.split(", ")
        wanted = ", ".join(f"'{one}'" for one in ids)
        return (
            f"SELECT {', '.join(WANTED)} FROM overlapping WHERE series_id IN ({wanted}) "
            f"AND valid_time >= {start} AND valid_time < {end}"
        )

    def ask_sql_by_adbc(self) -> None:
        """A query through the driver, which keeps no metadata: so it names an earlier moment itself."""
        ledger, ids, bounds = self.some()
        if not ledger.tokens:
            return
        _, as_of = self.chance.choice(list(ledger.tokens))
        sql = self._sql(ids, bounds).replace("overlapping", '"values"')
        with self.sql.cursor() as cursor:
            cursor.execute(f"{sql} AND change_time <= '{format_time(from_micros(as_of))}'::TIMESTAMPTZ")
            answer = cursor.fetch_arrow_table()
        self._check(ledger, ids, answer, as_of, "sql", view="overlapping", all_versions=True, **bounds)

    def ask_sql_by_flight(self) -> None:
        """A query as bare messages."""
        from tests.flight_server.sql_client import query

        ledger, ids, bounds = self.some()
        (endpoint,) = self.flight.get_flight_info(query(self._sql(ids, bounds))).endpoints
        answer = self.flight.do_get(endpoint.ticket).read_all()
        as_of = micros(parse_time(answer.schema.metadata[META_AS_OF].decode()))
        self._check(ledger, ids, answer, as_of, "sql", view="overlapping", **bounds)

    def _rest(self, accept: str) -> tuple[Ledger, list[str], dict[str, int], httpx.Response, int]:
        ledger, ids, bounds = self.some()
        asked = {name: format_time(from_micros(value)) for name, value in bounds.items()}
        response = self.http.get(
            "/values", params={"series_id": ids, "intervals": "true", **asked}, headers={"Accept": accept}
        )
        response.raise_for_status()
        return ledger, ids, bounds, response, micros(parse_time(response.headers["X-As-Of"]))

    def read_json(self) -> None:
        """Flat as JSON."""
        ledger, ids, bounds, response, as_of = self._rest("application/json")
        schema = {"series_id": pl.String, "valid_time": pl.String, "valid_time_end": pl.String, "value": pl.Float64}
        rows = pl.DataFrame([{name: row[name] for name in schema} for row in response.json()["data"]], schema=schema)
        times = pl.col("valid_time", "valid_time_end").str.to_datetime("%Y-%m-%dT%H:%M:%S%.6f%:z", time_unit="us")
        self._check(ledger, ids, rows.with_columns(times), as_of, "json", columns=SLOT_VALUE, **bounds)

    def read_csv(self) -> None:
        """Flat as CSV."""
        ledger, ids, bounds, response, as_of = self._rest("text/csv")
        kinds = {"series_id": pl.String, "valid_time": pl.String, "valid_time_end": pl.String, "value": pl.Float64}
        rows = pl.read_csv(io.BytesIO(response.content), schema_overrides=kinds)
        times = pl.col("valid_time", "valid_time_end").str.to_datetime("%Y-%m-%dT%H:%M:%S%.6f%:z", time_unit="us")
        self._check(ledger, ids, rows.with_columns(times), as_of, "csv", columns=SLOT_VALUE, **bounds)

    def read_arrow_over_rest(self) -> None:
        """Flat as an Arrow stream."""
        ledger, ids, bounds, response, as_of = self._rest("application/vnd.apache.arrow.stream")
        table = pa.ipc.open_stream(response.content).read_all()
        self._check(ledger, ids, table, as_of, "arrow over rest", columns=SLOT_VALUE, **bounds)
