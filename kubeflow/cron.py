"""Cron expressions as Kubeflow's scheduler reads them: six fields, seconds first."""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from pipeline.errors import UserError

_MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
_DAYS = {name.lower(): (number + 1) % 7 for number, name in enumerate(calendar.day_abbr)}
_PART = re.compile(r"(?P<begin>\*|\?|\w+)(?:-(?P<end>\w+))?(?:/(?P<step>[0-9]+))?")
_HORIZON_DAYS = 4 * 366 + 1  # a leap day at the latest


class _Field(NamedTuple):
    """What one field takes."""

    name: str
    first: int
    last: int
    names: dict[str, int]


_FIELDS = (
    _Field("second", 0, 59, {}),
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of the month", 1, 31, {}),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of the week", 0, 6, _DAYS),
)


class CronError(UserError):
    """A text that the scheduler would not take: one line for a person."""


@dataclass(frozen=True)
class Cron:
    """When a schedule starts runs.

    Attributes:
        seconds: of a minute, ascending; likewise the others.
        minutes: of an hour.
        hours: of a day.
        days: of a month.
        months: of a year.
        weekdays: 0 is Sunday.
        either_day: a day counts when it is one of `days` or one of `weekdays`, because both are restricted.
    """

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: tuple[int, ...]
    months: tuple[int, ...]
    weekdays: tuple[int, ...]
    either_day: bool

    def after(self, moment: datetime) -> datetime | None:
        """The first time after a moment, in its time zone; None where there is none, as on 30 February."""
        moment = moment.replace(microsecond=0)
        for days in range(_HORIZON_DAYS):
            day = moment + timedelta(days=days)
            if not self._has(day):
                continue
            for found in self._times(day):
                if found > moment:
                    return found
        return None

    def _has(self, day: datetime) -> bool:
        in_month, in_week = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return day.month in self.months and (
            in_month or in_week if self.either_day else in_month and in_week
        )

    def _times(self, day: datetime) -> Iterator[datetime]:
        for hour in self.hours:
            for minute in self.minutes:
                for second in self.seconds:
                    yield day.replace(hour=hour, minute=minute, second=second)


def parse(text: str) -> Cron:
    """Read an expression.

    Raises:
        CronError: for what the scheduler would not take.
    """
    fields = text.split()
    if len(fields) == 5:
        raise CronError(f"{text!r} has 5 fields; Kubeflow reads 6, seconds first: '0 {text}'")
    if len(fields) != 6:
        raise CronError(f"{text!r} is no cron expression: second minute hour day month weekday")
    seconds, minutes, hours, days, months, weekdays = (
        _values(field, given, text) for field, given in zip(_FIELDS, fields, strict=True)
    )
    either_day = all(given[0] not in "*?" for given in (fields[3], fields[5]))
    return Cron(seconds, minutes, hours, days, months, weekdays, either_day)


def _values(field: _Field, given: str, text: str) -> tuple[int, ...]:
    found: set[int] = set()
    for part in given.split(","):
        match = _PART.fullmatch(part)
        if not match:
            raise CronError(f"{text!r} is no cron expression: {part!r} is no {field.name}")
        if match["begin"] in "*?":
            begin, end = field.first, field.last
        else:
            begin = _number(field, match["begin"], text)
            single = begin if match["step"] is None else field.last
            end = single if match["end"] is None else _number(field, match["end"], text)
        step = int(match["step"] or 1)
        if end < begin or not step or (match["begin"] in "*?" and match["end"]):
            raise CronError(f"{text!r} is no cron expression: {part!r} is no range of a {field.name}")
        found.update(range(begin, end + 1, step))
    return tuple(sorted(found))


def _number(field: _Field, word: str, text: str) -> int:
    number = field.names.get(word.lower(), int(word) if re.fullmatch("[0-9]{1,4}", word) else -1)
    if not field.first <= number <= field.last:
        bounds = f"{field.first} to {field.last}"
        raise CronError(f"{text!r} is no cron expression: the {field.name} is {bounds}, not {word!r}")
    return number
