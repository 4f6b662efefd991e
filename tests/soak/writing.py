"""Writers: each owns its series, and writes down what the service acknowledged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import httpx
import numpy as np
import polars as pl
import pyarrow as pa

from tests.behaviour.oracle import HOUR
from tests.soak.ledger import COLUMNS, KEY, Auditor, Ledger, comparable, difference
from tests.soak.work import Work, Worker
from timedb.client import Client
from timedb.client.receipt import Receipt
from timedb.contract.errors import Conflict, IncompleteUpload
from timedb.contract.times import format_time, from_micros

START = int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1e6)
SERIES = 6
HOURS = 24
MOVE = 4
BULK_SERIES = 40
BULK_HOURS = 600
TIME = pl.Datetime("us", "UTC")
CHANGED = [*COLUMNS, "retracted"]


class Writer(Worker):
    """Uploads, retries, corrections and withdrawals of one owner, one after the other."""

    def __init__(self, work: Work, seed: int, seconds: float) -> None:
        super().__init__(work, seed, seconds)
        names = [f"soak-{seed}-{number}" for number in range(SERIES)]
        self.ledger = Ledger({name: self.client.create_series(name, unit="MW") for name in names})
        self.auditor = Auditor()
        self.http = httpx.Client(base_url=work.rest_url, timeout=60)
        self.known = START
        self.sent: tuple[str, pl.DataFrame, Receipt] | None = None
        work.ledgers.append(self.ledger)

    def leave(self) -> None:
        """Close."""
        self.http.close()

    def operations(self) -> Mapping[Callable[[], None], int]:
        """All."""
        return {
            self.upload: 10,
            self.upload_over_rest: 4,
            self.upload_unchanged: 3,
            self.upload_again: 3,
            self.upload_twice_at_once: 2,
            self.upload_under_a_taken_run_id: 1,
            self.upload_without_an_end: 2,
            self.correct: 6,
            self.withdraw: 2,
            self.create_series: 1,
        }

    def rows(self, series: int = SERIES, hours: int = HOURS) -> pl.DataFrame:
        """A new run: a window of hours for some series, known later than all before."""
        self.known += HOUR // 4
        first = self.chance.randint(max(0, self.ledger.hours - 200), self.ledger.hours)
        self.ledger.hours += MOVE
        names = self.chance.sample(sorted(self.ledger.series), series)
        rows = pl.DataFrame({"series_key": names}).join(
            pl.DataFrame({"hour": range(first, first + hours)}), how="cross"
        )
        values = np.random.default_rng(self.chance.getrandbits(32)).normal(50.0, 10.0, rows.height).round(2)
        return rows.select(
            pl.col("series_key").replace_strict(self.ledger.series).alias("series_id"),
            (START + pl.col("hour") * HOUR).alias("valid_time"),
            # Half of the series are of intervals.
            pl.when(pl.col("series_key").str.slice(-1).is_in(["0", "2", "4", "6", "8"]))
            .then(START + (pl.col("hour") + 1) * HOUR)
            .alias("valid_time_end"),
            pl.lit(self.known, pl.Int64).alias("known_time"),
            pl.Series("value", [None if value < 25 else value for value in values], pl.Float64),
        )

    def upload(self) -> None:
        """One run over Flight."""
        rows = self.rows(series=self.chance.randint(1, SERIES))
        with self.ledger.lock:
            self._send(self.client, str(uuid4()), rows)

    def _send(self, client: Client, run_id: str, rows: pl.DataFrame, *, skipped: pl.DataFrame | None = None) -> Receipt:
        """Upload and note; the lock is held."""
        receipt = client.upload(as_upload(rows), run_id=run_id, skip_unchanged=skipped is not None)
        kept = rows if skipped is None else rows.join(skipped, on=KEY[:4], how="anti", nulls_equal=True)
        if (receipt.rows, receipt.skipped) != (kept.height, rows.height - kept.height):
            self.work.fault(f"upload {run_id}: {receipt.rows} rows, {receipt.skipped} skipped of {kept.height}")
        self.ledger.add(noted(kept, run_id, micros(receipt.change_time)))
        self.sent = (run_id, rows, receipt) if skipped is None else self.sent
        return receipt

    def upload_over_rest(self) -> None:
        """One run as JSON; its change_time is what the changes since say."""
        rows, run_id = self.rows(series=1), str(uuid4())
        body = {
            "run_id": run_id,
            "run_start_time": format_time(from_micros(self.known)),
            "known_time": format_time(from_micros(self.known)),
            "value_rows": [
                {
                    "series_id": row["series_id"],
                    "valid_time": format_time(from_micros(row["valid_time"])),
                    "valid_time_end": row["valid_time_end"] and format_time(from_micros(row["valid_time_end"])),
                    "value": row["value"],
                }
                for row in rows.iter_rows(named=True)
            ],
        }
        with self.ledger.lock:
            token = self._token()
            response = self.http.post("/runs", json=body)
            response.raise_for_status()
            self._note_changes(token, noted(rows, run_id, 0))

    def upload_unchanged(self) -> None:
        """A run of which some rows say what is known already; those are skipped."""
        with self.ledger.lock:
            rows = self.rows()
            winners = self.auditor.standing(self.ledger._rows, self.ledger.ids, "flat", columns=[*KEY, "value"])
            slot = ["series_id", "valid_time", "valid_time_end"]
            before = rows.join(
                winners.select(*slot, pl.col("value").alias("stands"), pl.lit(True).alias("there")),
                on=slot,
                how="left",
                nulls_equal=True,
            )
            same = pl.col("there").is_not_null() & (pl.int_range(pl.len()) % 2 == 0)
            before = before.with_columns(pl.when(same).then("stands").otherwise("value").alias("value"))
            unchanged = pl.col("there").is_not_null() & pl.col("value").eq_missing(pl.col("stands"))
            self._send(self.client, str(uuid4()), before.select(rows.columns), skipped=before.filter(unchanged))

    def upload_again(self) -> None:
        """A retry, in another order and over a new connection, adds nothing and answers as the first time, but for what
        has been withdrawn since.
        """
        if self.sent is None:
            return
        run_id, rows, first = self.sent
        with self.ledger.lock, connection(self.work) as client:
            again = client.upload(as_upload(rows.reverse()), run_id=run_id)
            versions = self.ledger._rows.filter(run_id=run_id)
            revisions = versions.unique(KEY).height
            gone = revisions - self.auditor.standing(versions, self.ledger.ids).height
        expected = replace(first, withdrawn=again.withdrawn, withdrawn_rows=gone)
        if again != expected or (again.withdrawn is not None) != (gone == revisions):
            self.work.fault(f"retry of {run_id}: {again} in place of {expected}")

    def upload_twice_at_once(self) -> None:
        """Two connections send one run at the same time: it is written once, and both hear the same."""
        rows, run_id, heard = self.rows(series=1), str(uuid4()), list[Receipt]()

        def send() -> None:
            with self.work.operation("the other of two at once"), connection(self.work) as client:
                heard.append(client.upload(as_upload(rows), run_id=run_id))

        with self.ledger.lock:
            other = threading.Thread(target=send)
            other.start()
            heard.append(self._send(self.client, run_id, rows))
            other.join()
        if len(heard) != 2 or heard[0] != heard[1]:
            self.work.fault(f"two at once of {run_id}: {heard}")

    def upload_under_a_taken_run_id(self) -> None:
        """Other rows under the same run_id are a conflict."""
        if self.sent is None:
            return
        run_id, rows, _ = self.sent
        with self.ledger.lock:
            try:
                self.client.upload(as_upload(rows.with_columns(pl.lit(-1.0).alias("value"))), run_id=run_id)
            except Conflict:
                return
        self.work.fault(f"other rows under {run_id} were taken")

    def upload_without_an_end(self) -> None:
        """A run that is not confirmed is not there; its rows would win every read."""
        rows = self.rows().with_columns(pl.lit(9e9).alias("value"), pl.lit(START + 10**6 * HOUR).alias("known_time"))
        batches = iter(as_upload(rows).to_arrow().to_batches())

        def broken() -> object:
            yield from batches
            raise IncompleteUpload("the source broke off")

        reader = _Batches(as_upload(rows).to_arrow().schema, broken())
        from timedb.contract.wire import UploadCommand

        with self.ledger.lock:
            try:
                self.client.send(UploadCommand(run_id=str(uuid4())), reader)
            except IncompleteUpload:
                return
        self.work.fault("an upload without an end was taken")

    def correct(self) -> None:
        """Other values for some rows, and some of them retracted."""
        with self.ledger.lock:
            standing = self.auditor.standing(
                self.ledger._rows, self.ledger.ids, start_valid=START + (self.ledger.hours - 60) * HOUR
            )
            if standing.is_empty():
                return
            chosen = standing.sample(min(4, standing.height), seed=self.chance.getrandbits(30))
            retracted = [self.chance.random() < 0.3 for _ in range(chosen.height)]
            new = [round(self.chance.uniform(100, 200), 3) for _ in range(chosen.height)]
            updates = []
            for row, gone, value in zip(chosen.iter_rows(named=True), retracted, new, strict=True):
                end = row["valid_time_end"]
                updates.append(
                    {
                        "run_id": row["run_id"],
                        "series_id": row["series_id"],
                        "valid_time": from_micros(row["valid_time"]),
                        "valid_time_end": None if end is None else from_micros(end),
                        **({"retracted": True} if gone else {"value": value}),
                    }
                )
            token = self._token()
            answer = self.client.update_values(updates, update_id=str(uuid4()))
            if len(answer["updated"]) != chosen.height:
                self.work.fault(f"correction: {answer}")
            flags, values = pl.Series(retracted, dtype=pl.Boolean), pl.Series(new, dtype=pl.Float64)
            kept = pl.when(flags).then("value").otherwise(values).alias("value")
            self._note_changes(token, chosen.with_columns(kept, flags.alias("retracted")))

    def withdraw(self) -> None:
        """Take a whole run back."""
        with self.ledger.lock:
            standing = self.auditor.standing(
                self.ledger._rows, self.ledger.ids, start_valid=START + (self.ledger.hours - 30) * HOUR
            )
            if standing.is_empty():
                return
            run_id = self.chance.choice(standing["run_id"].unique().sort().to_list())
            gone = self.auditor.standing(self.ledger._rows.filter(run_id=run_id), self.ledger.ids)
            token = self._token()
            withdrawn = self.client.withdraw_run(run_id, reason="soak")
            if withdrawn != gone.height:
                self.work.fault(f"withdrawal of {run_id}: {withdrawn} rows in place of {gone.height}")
            self._note_changes(token, gone.with_columns(pl.lit(True).alias("retracted")))

    def create_series(self) -> None:
        """The same series again is the same series."""
        name, series_id = self.chance.choice(sorted(self.ledger.series.items()))
        if self.client.create_series(name) != series_id:
            self.work.fault(f"{name} has another id now")

    def _token(self) -> str:
        return _token_of(self.client, self.ledger)

    def _note_changes(self, token: str, rows: pl.DataFrame) -> None:
        """Learn the change_times of what was just written from the changes since a token: those rows alone."""
        changes = self.client.read_arrow(view="changes", since=token, series_ids=self.ledger.ids)
        found = comparable(pl.DataFrame(changes), CHANGED).with_columns(pl.col("retracted").fill_null(False))
        without = [name for name in CHANGED if name != "change_rank"]
        fault = difference(found.select(without).sort(without), comparable(with_flag(rows), without))
        if fault is not None:
            self.work.fault(f"changes: {fault}")
        self.ledger.add(found)


class BulkWriter(Worker):
    """Runs that are large enough for files of their own, each about times after those before."""

    def __init__(self, work: Work, seed: int, seconds: float) -> None:
        super().__init__(work, seed, seconds)
        names = [f"bulk-{seed}-{number:02}" for number in range(BULK_SERIES)]
        self.ledger = Ledger({name: self.client.create_series(name, unit="MW") for name in names})
        self.known = START
        work.bulk = self.ledger

    def operations(self) -> Mapping[Callable[[], None], int]:
        """All."""
        return {self.upload_in_bulk: 1}

    def upload_in_bulk(self) -> None:
        """Half of it revises the run before."""
        self.known += HOUR
        first = self.ledger.hours
        hours = pl.DataFrame({"hour": range(first, first + BULK_HOURS)})
        rows = (
            pl.DataFrame({"series_id": self.ledger.ids})
            .join(hours, how="cross")
            .select(
                "series_id",
                (START + pl.col("hour") * HOUR).alias("valid_time"),
                pl.lit(None, pl.Int64).alias("valid_time_end"),
                pl.lit(self.known, pl.Int64).alias("known_time"),
                pl.Series(
                    "value", np.random.default_rng(self.known).normal(5.0, 2.0, BULK_SERIES * BULK_HOURS).round(2)
                ),
            )
        )
        run_id = str(uuid4())
        with self.ledger.lock:
            receipt = self.client.upload(as_upload(rows), run_id=run_id)
            self.ledger.add(noted(rows, run_id, micros(receipt.change_time)))
        self.ledger.hours += BULK_HOURS // 2


class Upkeep(Worker):
    """An operator who has the lake compacted and looks at figures."""

    def operations(self) -> Mapping[Callable[[], None], int]:
        """All."""
        return {self.compact: 1, self.maintain: 1, self.status: 3, self.metrics: 3, self.health: 3}

    def compact(self) -> None:
        """On demand, beside the server's own."""
        self.client.compact()

    def maintain(self) -> None:
        """Checkpoint, clean the log."""
        self.client.maintain()

    def status(self) -> None:
        """Figures."""
        self.client.status()

    def metrics(self) -> None:
        """Over REST."""
        if "timedb_flight_calls_total" not in httpx.get(f"{self.work.rest_url}/metrics", timeout=60).text:
            self.work.fault("metrics: no figures")

    def health(self) -> None:
        """Over REST."""
        if not httpx.get(f"{self.work.rest_url}/health", timeout=60).is_success:
            self.work.fault("health: not ok")


class _Batches:
    def __init__(self, schema: pa.Schema, batches: object) -> None:
        self.schema = schema
        self._batches = batches

    def __iter__(self) -> object:
        return self._batches


def connection(work: Work) -> Client:
    """A connection of its own."""
    import timedb as td

    return td.connect(work.flight_url, timeout=60, stream_timeout=120)


def _token_of(client: Client, ledger: Ledger) -> str:
    """The token of the present."""
    answer = client.read_arrow(series_ids=ledger.ids, view="overlapping", end_valid=from_micros(START))
    return str(answer.schema.metadata[b"token"].decode())


def as_upload(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows in the columns of an upload."""
    times = ["valid_time", "valid_time_end", "known_time"]
    return rows.select("series_id", *(pl.col(name).cast(TIME) for name in times), "value")


def noted(rows: pl.DataFrame, run_id: str, change_rank: int) -> pl.DataFrame:
    """Rows as the ledger has them."""
    return with_flag(rows).with_columns(
        pl.lit(run_id).alias("run_id"), pl.lit(change_rank, pl.Int64).alias("change_rank")
    )


def with_flag(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows that say whether they are retracted; they are not, unless they said so before."""
    return rows if "retracted" in rows.columns else rows.with_columns(pl.lit(False).alias("retracted"))


def micros(time: datetime) -> int:
    """Microseconds since 1970."""
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
