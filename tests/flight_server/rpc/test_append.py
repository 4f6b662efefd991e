"""``append`` over ``do_exchange``: many runs over one stream, as plain ``pyarrow.flight`` sees them."""

from __future__ import annotations

import json
import random
import threading
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import flight

from tests.flight_server.appends import Stream, code_of
from tests.flight_server.flights import (
    Connect,
    Start,
    act,
    command,
    eventually,
    fails,
    hours,
    read,
    rows_of,
    send,
    series_named,
)
from tests.storage.lakes import held_lane
from timedb.client.flight_errors import as_timedb_error
from timedb.contract.identity import OPEN_TENANT_ID
from timedb.contract.times import parse_time
from timedb.flight_server import FlightService
from timedb.storage import Lake

KNOWN = "2025-01-01T00:00:00+00:00"


def value_of(client: flight.FlightClient, name: str) -> list[float]:
    """The flat values of a series."""
    values: list[float] = read(client, series_keys=[name], ordered=True).column("value").to_pylist()
    return values


def test_each_run_is_answered_with_its_receipt(client: flight.FlightClient, name: str) -> None:
    stream = Stream(client, rows_of(name).schema)
    for seq in range(5):
        stream.run(seq, rows_of(name, 3, value=pa.array([seq, seq, seq], pa.float64())), f"{name}-{seq}")
    answers = stream.end()
    assert [answers[seq]["receipt"]["run_id"] for seq in range(5)] == [f"{name}-{seq}" for seq in range(5)]
    assert {answer["receipt"]["rows"] for answer in answers.values()} == {3}
    (series,) = series_named(client, name)
    assert answers[0]["receipt"]["series_ids"] == {name: series["series_id"]}
    assert value_of(client, name) == [4.0, 4.0, 4.0]
    run = act(client, "get_run", {"run_id": f"{name}-2"})
    assert (run["rows"], run["workflow_id"]) == (3, "flight-upload")


def test_what_waits_is_one_commit_and_one_file(
    flight_service: FlightService, client: flight.FlightClient, lake: Lake, name: str
) -> None:
    tenant = lake.tenant(OPEN_TENANT_ID)
    stream = Stream(client, rows_of(name).schema)
    with held_lane(lake.tenant(OPEN_TENANT_ID)):
        for seq in range(100):
            stream.run(seq, rows_of(f"{name}-{seq % 7}"), f"{name}-{seq}", known_time=KNOWN)
        eventually(lambda: flight_service._server._append_room.runs == 100)
    answers = stream.end()
    assert [code_of(answer) for answer in answers.values()] == ["ok"] * 100
    (version,) = {answer["receipt"]["table_version"] for answer in answers.values()}
    (commit,) = tenant.values.log.commits_after(version - 1, version)
    assert len(commit.adds) == 1


def test_change_times_are_in_the_order_of_seq(client: flight.FlightClient, name: str) -> None:
    stream = Stream(client, rows_of(name).schema)
    for seq in range(0, 80, 2):
        stream.run(seq, rows_of(name, 1), f"{name}-{seq}")
    answers = stream.end()
    times = [parse_time(answers[seq]["receipt"]["change_time"]) for seq in range(0, 80, 2)]
    assert times == sorted(set(times))


def test_answers_come_in_the_order_of_commits_before_the_stream_ends(client: flight.FlightClient, name: str) -> None:
    stream = Stream(client, rows_of(name).schema)
    for seq in range(40):
        stream.run(seq, rows_of(name, 1), f"{name}-{seq}")
    eventually(lambda: len(stream.answers) == 40)
    versions = [answer["receipt"]["table_version"] for answer in stream.answers]
    assert versions == sorted(versions)
    assert value_of(client, name) == [0.0]
    stream.end()


def test_a_retry_gets_the_same_receipt_also_while_the_first_waits(
    client: flight.FlightClient, lake: Lake, name: str
) -> None:
    one, two = Stream(client, rows_of(name).schema), Stream(client, rows_of(name).schema)
    with held_lane(lake.tenant(OPEN_TENANT_ID)):
        one.run(0, rows_of(name), name)
        one.run(1, rows_of(name), name)
        one.run(2, rows_of(name, value=pa.array([7.0, 7.0, 7.0])), name)
        two.run(9, rows_of(name), name)
    first, other = one.end(), two.end()
    assert first[0]["receipt"] == first[1]["receipt"] == other[9]["receipt"]
    assert code_of(first[2]) == "conflict"
    assert name in first[2]["error"]["detail"]
    assert send(client, rows_of(name), rows=3, run_id=name) == [first[0]["receipt"]]  # by do_put, too
    assert read(client, series_keys=[name], view="overlapping").num_rows == 3


def test_a_column_of_nulls_is_one_that_is_not_there(client: flight.FlightClient, name: str) -> None:
    plain = rows_of(name)
    wide = rows_of(
        name,
        series_id=pa.nulls(3, pa.string()),
        labels=pa.nulls(3, pa.string()),
        valid_time_end=pa.nulls(3, pa.timestamp("us", "UTC")),
        known_time=pa.nulls(3, pa.timestamp("us", "UTC")),
        annotation=pa.nulls(3, pa.dictionary(pa.int8(), pa.string())),
        tags=pa.nulls(3, pa.list_(pa.string())),
    )
    (receipt,) = send(client, plain, rows=3, run_id=name)
    stream = Stream(client, wide.schema)
    stream.run(0, wide, name)
    stream.run(1, wide.set_column(8, "tags", pa.array([["a"], None, None], pa.list_(pa.string()))), f"{name}-2")
    answers = stream.end()
    assert answers[0]["receipt"] == receipt
    rows = read(client, series_keys=[name], view="overlapping", columns=["run_id", "tags"], ordered=True).to_pylist()
    assert [row["tags"] for row in rows if row["run_id"] == f"{name}-2"] == [["a"], None, None]


def test_dictionaries_are_replaced_between_batches(client: flight.FlightClient, name: str) -> None:
    def rows(number: int) -> pa.Table:
        names = [f"{name}-{number}-{each}" for each in range(60)]
        series = pa.DictionaryArray.from_arrays(pa.array(range(60), pa.int8()), names)
        return pa.table({"series_key": series, "valid_time": hours(60), "value": pa.array([float(number)] * 60)})

    stream = Stream(client, rows(0).schema)
    for seq in range(6):  # 360 names, more than an int8 can tell apart
        stream.run(seq, rows(seq), f"{name}-{seq}")
    assert [code_of(answer) for answer in stream.end().values()] == ["ok"] * 6
    for seq in range(6):
        assert value_of(client, f"{name}-{seq}-59") == [float(seq)]


def test_skip_unchanged_sees_the_runs_before_it(client: flight.FlightClient, lake: Lake, name: str) -> None:
    stream = Stream(client, rows_of(name).schema)
    with held_lane(lake.tenant(OPEN_TENANT_ID)):
        for seq in range(3):
            stream.run(
                seq, rows_of(name), f"{name}-{seq}", known_time=f"2025-01-01T0{seq}:00:00Z", skip_unchanged=seq > 0
            )
    answers = stream.end()
    assert [(answers[seq]["receipt"]["rows"], answers[seq]["receipt"]["skipped"]) for seq in range(3)] == [
        (3, 0),
        (0, 3),
        (0, 3),
    ]


def test_a_run_of_several_batches(client: flight.FlightClient, name: str) -> None:
    first, last = rows_of(name, 2), rows_of(name, 2, valid_time=hours(4)[2:], value=pa.array([2.0, 3.0]))
    stream = Stream(client, first.schema)
    stream.send(first, {"seq": 3, "upload": {"run_id": name, "rows": 4}, "more": True})
    stream.send(last, {"seq": 3})
    assert stream.end()[3]["receipt"]["rows"] == 4
    assert value_of(client, name) == [0.0, 1.0, 2.0, 3.0]


def test_another_run_in_between_makes_it_incomplete(client: flight.FlightClient, name: str) -> None:
    stream = Stream(client, rows_of(name).schema)
    stream.send(rows_of(name), {"seq": 1, "upload": {"run_id": f"{name}-1"}, "more": True})
    stream.run(2, rows_of(name), f"{name}-2")
    stream.send(rows_of(name), {"seq": 1, "more": True})
    stream.send(rows_of(name), {"seq": 1})
    stream.send(rows_of(name), {"seq": 3, "upload": {"run_id": f"{name}-3"}, "more": True})
    answers = stream.end()
    assert {seq: code_of(answer) for seq, answer in answers.items()} == {
        1: "incomplete_upload",
        2: "ok",
        3: "incomplete_upload",
    }
    with fails("not_found"):
        act(client, "get_run", {"run_id": f"{name}-1"})


FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "no run_id": ({"upload": {}}, "invalid_request", "upload.run_id"),
    "no upload": ({}, "invalid_request", "upload: is missing"),
    "an unknown field": ({"upload": {"run_id": "x", "spam": 1}}, "invalid_request", "spam"),
    "an op": ({"upload": {"run_id": "x"}, "op": "append"}, "invalid_request", "op"),
    "other rows": ({"upload": {"run_id": "x", "rows": 2}}, "incomplete_upload", "rows: 2 were announced, 3 arrived"),
    "no series": ({"upload": {"run_id": "x", "create_series": False}}, "not_found", "series_key"),
    "a unit": ({"upload": {"run_id": "x", "unit": "no unit"}}, "invalid_request", "unit"),
    "more that is no flag": ({"upload": {"run_id": "x"}, "more": "yes"}, "invalid_request", "more"),
}


def test_the_fault_of_a_run_does_not_hurt_the_others(client: flight.FlightClient, lake: Lake, name: str) -> None:
    stream = Stream(client, rows_of(name).schema)
    twice = rows_of(name, 2, valid_time=pa.array([hours(1)[0].as_py()] * 2, pa.timestamp("us", "UTC")))
    with held_lane(lake.tenant(OPEN_TENANT_ID)):
        for seq, (message, _, _) in enumerate(FAULTS.values()):
            stream.send(rows_of(f"{name}-{seq}"), {"seq": 2 * seq, **message})
            stream.run(2 * seq + 1, rows_of(f"{name}-{seq}-good"), f"{name}-{seq}")
        last = 2 * len(FAULTS)
        stream.run(last, twice, f"{name}-twice")
        stream.run(last + 1, rows_of(" "), f"{name}-blank")
        stream.send(rows_of(name), {"seq": 4, "upload": {"run_id": f"{name}-late"}})
    answers = stream.end_all()
    for seq, (_, code, part) in enumerate(FAULTS.values()):
        assert code_of(answers[2 * seq][0]) == code, answers[2 * seq]
        assert part in answers[2 * seq][0]["error"]["detail"]
        assert set(answers[2 * seq][0]["error"]) - {"field"} == {"code", "message", "detail", "request_id"}
        assert code_of(answers[2 * seq + 1][0]) == "ok"
    assert "is there twice" in answers[last][0]["error"]["detail"]
    assert "row 0" in answers[last + 1][0]["error"]["detail"]  # of its own rows, although many were checked at once
    assert "does not come after" in answers[4][1]["error"]["detail"]


def test_metadata_that_names_no_run_ends_the_stream(client: flight.FlightClient, name: str) -> None:
    no_run = (b"", b"{", b"[]", b'{"seq": -1}', b'{"seq": 1.5}', b'{"seq": true}', b"\xff")
    no_end = (b'{"end": true}', b'{"end": false}')  # of a batch that has rows
    for number, body in enumerate(no_run + no_end):
        stream = Stream(client, rows_of(name).schema, read=False)
        stream.run(0, rows_of(name), f"{name}-{number}")
        stream.send(rows_of(name), body)
        with fails("invalid_request"):
            stream.end()
        assert [code_of(answer) for answer in stream.answers] == ["ok"]  # what was whole is in


@pytest.mark.parametrize("with_batch", [True, False])
def test_a_stream_ends_by_a_message(client: flight.FlightClient, name: str, with_batch: bool) -> None:
    stream = Stream(client, rows_of(name).schema, read=False)
    stream.run(0, rows_of(name), name)
    if with_batch:
        stream.send(rows_of(name)[:0], {"end": True})
    else:
        stream.writer.write_metadata(b'{"end": true}')
    assert code_of(json.loads(stream.reader.read_chunk().app_metadata.to_pybytes())) == "ok"
    with pytest.raises(StopIteration):
        stream.reader.read_chunk()
    stream.writer.close()


def test_fuzzed_metadata_never_stops_the_server(client: flight.FlightClient, name: str) -> None:
    chance = random.Random(7)
    good = json.dumps({"seq": 1, "upload": {"run_id": name, "known_time": KNOWN}, "more": False}).encode()
    codes = set()
    for _ in range(60):
        body = bytearray(good)
        for _ in range(chance.randint(1, 4)):
            body[chance.randrange(len(body))] = chance.randrange(256)
        stream = Stream(client, rows_of(name).schema, read=False)
        stream.send(rows_of(name), bytes(body))
        try:
            codes |= {code_of(answer) for answer in stream.end().values()}
        except (pa.ArrowException, OSError) as error:
            codes.add(as_timedb_error(error, "-").code)
    assert codes <= {"ok", "conflict", "invalid_request", "incomplete_upload"}
    assert act(client, "health") == {"ok": True}


def test_a_stream_is_refused_by_its_columns(client: flight.FlightClient, name: str) -> None:
    rows = rows_of(name).append_column("colour", pa.array(["red"] * 3))
    stream = Stream(client, rows.schema, read=False)
    with fails("invalid_request", "colour"):
        stream.end()


def test_the_command_takes_no_fields(client: flight.FlightClient, name: str) -> None:
    writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(command("append", {"run_id": "x"})))
    with fails("invalid_request", "run_id"):
        reader.read_chunk()
    with pytest.raises(pa.ArrowException):
        writer.close()


def test_beyond_what_may_wait_the_server_reads_no_further(
    start: Start, connect: Connect, lake: Lake, name: str
) -> None:
    service = start(max_append_in_flight=4)
    stream = Stream(connect(service), rows_of(name).schema)
    room = service._server._append_room
    sent = threading.Event()

    def send_all() -> None:
        for seq in range(40):
            stream.run(seq, rows_of(name, 1), f"{name}-{seq}")
        sent.set()

    with held_lane(lake.tenant(OPEN_TENANT_ID)):
        threading.Thread(target=send_all, daemon=True).start()
        assert sent.wait(60)  # so small, they lie in the buffers between the two
        eventually(lambda: room.runs == 4)
        assert service._server.uploads.taken == 1
    assert [code_of(answer) for answer in stream.end().values()] == ["ok"] * 40
    assert room.runs == 0


def test_a_run_over_the_bytes_of_a_stream_is_refused_alone(start: Start, connect: Connect, name: str) -> None:
    stream = Stream(connect(start(max_append_bytes=10_000)), rows_of(name).schema)
    stream.send(rows_of(name), {"seq": 0, "upload": {"run_id": f"{name}-0"}, "more": True})
    stream.send(rows_of(name, 5_000), {"seq": 0, "more": True})
    stream.send(rows_of(name), {"seq": 0})
    stream.run(1, rows_of(name), f"{name}-1")
    answers = stream.end()
    assert [code_of(answers[seq]) for seq in range(2)] == ["too_large", "ok"]
    assert "do_put" in answers[0]["error"]["detail"]


def test_what_was_whole_is_committed_where_the_client_dies(
    flight_service: FlightService, client: flight.FlightClient, lake: Lake, name: str
) -> None:
    with flight.connect(flight_service.url) as dying:
        stream = Stream(dying, rows_of(name).schema, read=False)
        with held_lane(lake.tenant(OPEN_TENANT_ID)):
            stream.run(0, rows_of(name), f"{name}-0")
            stream.send(rows_of(name), {"seq": 1, "upload": {"run_id": f"{name}-1"}, "more": True})
            eventually(lambda: flight_service._server._append_room.runs == 1)
            stream.reader.cancel()
    eventually(lambda: value_of(client, name) == [0.0, 1.0, 2.0] if series_named(client, name) else False)
    eventually(lambda: flight_service._server.uploads.taken == 0)
    with fails("not_found"):
        act(client, "get_run", {"run_id": f"{name}-1"})
    assert flight_service._server._append_room.runs == 0


def test_a_long_receipt_comes_in_pieces(client: flight.FlightClient, name: str) -> None:
    count = 1000
    names = pa.array([f"{name}-{number}" for number in range(count)])
    rows = pa.table({"series_key": names, "valid_time": hours(count), "value": pa.array([1.0] * count)})
    stream = Stream(client, rows.schema, options=flight.FlightCallOptions(headers=[(b"x-max-message-bytes", b"65536")]))
    stream.run(0, rows, name)
    stream.run(1, rows_of(name), f"{name}-more")
    stream.end()
    pieces = [answer for answer in stream.answers if answer["seq"] == 0]
    assert len(pieces) > 1
    assert [piece.get("more", False) for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert sum(len(piece["receipt"]["series_ids"]) for piece in pieces) == count
