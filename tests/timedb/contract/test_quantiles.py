"""The label ``quantile``: one spelling of a number in (0, 1)."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timedb.contract.errors import InvalidRequest
from timedb.contract.quantiles import canonical_quantile, check_quantile
from timedb.contract.wire import CreateSeries, ReadTicket, parse_object


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("0.1", "0.1"),
        ("0.10", "0.1"),
        (".1", "0.1"),
        ("1e-1", "0.1"),
        ("+0.5", "0.5"),
        ("00.975", "0.975"),
        ("1E-7", "0.0000001"),
    ],
)
def test_the_shortest_decimal_text(text: str, spelled: str) -> None:
    assert canonical_quantile(text) == spelled


@given(st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True))
def test_each_number_has_one_spelling_which_is_that_number(number: float) -> None:
    text = canonical_quantile(repr(number))
    assert float(text) == number
    assert canonical_quantile(text) == text
    assert "e" not in text.lower()
    check_quantile({"quantile": text})
    for other in (f"{text}0", text.removeprefix("0"), f"{Decimal(text):E}"):
        with pytest.raises(ValueError, match=f"another spelling of '{text}'"):
            check_quantile({"quantile": other})


@pytest.mark.parametrize("text", ["0", "1", "0.0", "1.0", "-0.5", "1.5", "nan", "inf", "", "median", "0,1", "1/2"])
def test_what_is_no_number_in_between_is_no_quantile_and_a_label_as_any_other(text: str) -> None:
    with pytest.raises(ValueError, match="is not a number in"):
        canonical_quantile(text)
    check_quantile({"quantile": text})


def test_messages_take_one_spelling_only() -> None:
    assert parse_object(CreateSeries, {"name": "load", "labels": {"quantile": "0.1"}}).labels == {"quantile": "0.1"}
    for model, message in (
        (CreateSeries, {"name": "load", "labels": {"quantile": "0.10"}}),
        (ReadTicket, {"op": "read", "labels": {"quantile": "0.10"}}),
        (ReadTicket, {"op": "read", "labels": {"quantile": ["0.5", "0.10"]}}),
    ):
        with pytest.raises(InvalidRequest, match=r"labels.*'0\.10' is another spelling of '0\.1'"):
            parse_object(model, message)
