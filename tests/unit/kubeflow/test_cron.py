"""Cron expressions of six fields."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubeflow import cron
from kubeflow.cron import CronError

NOW = datetime(2026, 1, 30, 12, 30, 15, 400_000, UTC)  # a Friday


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("* * * * * *", "2026-01-30 12:30:16"),
        ("0 0 3 * * *", "2026-01-31 03:00:00"),
        ("*/20 * * * * *", "2026-01-30 12:30:20"),
        ("0 30 12 * * *", "2026-01-31 12:30:00"),
        ("5/20 31 * * * ?", "2026-01-30 12:31:05"),
        ("0 0 0 1 * *", "2026-02-01 00:00:00"),
        ("0 0 0 * * MON-WED", "2026-02-02 00:00:00"),
        ("0 0 0 * feb,Mar 0", "2026-02-01 00:00:00"),
        ("0 0 0 13 * 5", "2026-02-06 00:00:00"),  # the 13th, or any Friday
        ("0 0 0 29 2 *", "2028-02-29 00:00:00"),
        ("59 59 23 31 12 *", "2026-12-31 23:59:59"),
    ],
)
def test_the_first_time_after_a_moment(text: str, expected: str) -> None:
    assert cron.parse(text).after(NOW) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_a_day_that_never_comes() -> None:
    assert cron.parse("0 0 0 30 2 *").after(NOW) is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 3 * * *", r"seconds first: '0 0 3 \* \* \*'"),
        ("each day", "second minute hour day month weekday"),
        ("0 0 3 * * $", r"'\$' is no day of the week"),
        ("60 * * * * *", "the second is 0 to 59, not '60'"),
        ("0 0 24 * * *", "the hour is 0 to 23"),
        ("0 0 0 0 * *", "the day of the month is 1 to 31"),
        ("0 0 0 1 foo *", "the month is 1 to 12, not 'foo'"),
        ("0 5-1 * * * *", "'5-1' is no range of a minute"),
        ("0 */0 * * * *", "no range of a minute"),
        ("0 *-5 * * * *", "no range of a minute"),
    ],
)
def test_what_is_none_is_named(text: str, said: str) -> None:
    with pytest.raises(CronError, match=said):
        cron.parse(text)


@given(st.datetimes(datetime(2020, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC)))
def test_times_follow_each_other(moment: datetime) -> None:
    every = cron.parse("0 */5 8-18 * * 1-5")
    first = every.after(moment)
    assert first is not None
    assert first > moment.replace(microsecond=0)
    assert (first.second, first.minute % 5) == (0, 0)
    second = every.after(first)
    assert second is not None
    assert second > first


@given(st.text(max_size=40))
def test_any_text_is_a_cron_expression_or_one_line(text: str) -> None:
    refused = ""
    try:
        cron.parse(text)
    except CronError as error:
        refused = str(error)
    assert not refused or repr(text) in refused
