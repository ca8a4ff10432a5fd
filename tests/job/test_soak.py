"""A soak finds what grows and what stays behind, and closes its books."""

from collections.abc import Iterator
from random import Random

import pytest

from benchmarks.soak import Books, Sample, growth_of

FLAT = Sample(
    at_secs=0.0,
    resident_mb=250.0,
    anonymous_mb=150.0,
    descriptors=20,
    sockets=10,
    threads=8,
    processes=1,
    cpu_secs=0.0,
    on_queue=0,
)
HOUR_SECS = 3600


def an_hour() -> Iterator[Sample]:
    """A job that moves up and down around where it is after ten minutes."""
    random = Random(0)  # noqa: S311 - noise
    for at_secs in range(10, HOUR_SECS + 10, 10):
        start_mb = max(0, 600 - at_secs) / 10
        yield FLAT._replace(
            at_secs=at_secs,
            resident_mb=250 - start_mb + random.uniform(-20, 40),
            descriptors=20 + random.randrange(5),
            threads=8 + random.randrange(20),
        )


def test_what_moves_up_and_down_does_not_grow() -> None:
    growth = growth_of(list(an_hour()))

    assert abs(growth.resident) < 0.01
    assert growth.is_none


def test_a_growth_of_three_percent_an_hour_is_found() -> None:
    grown = [
        sample._replace(resident_mb=sample.resident_mb * (1 + 0.04 * sample.at_secs / HOUR_SECS))
        for sample in an_hour()
    ]

    growth = growth_of(grown)

    assert growth.resident == pytest.approx(0.027, abs=0.008)
    assert not growth.is_none


@pytest.mark.parametrize("field", ["descriptors", "sockets", "threads"])
def test_one_that_stays_behind_is_found(field: str) -> None:
    samples = [
        sample._replace(**{field: getattr(sample, field) + (sample.at_secs > HOUR_SECS / 2)})
        for sample in an_hour()
    ]

    growth = growth_of(samples)

    assert getattr(growth, field) == 1
    assert not growth.is_none


CLOSED = Books(
    delivered=100, archived=90, left=10, archived_again=2, decoded=91, failed=1, doubled_rows=0
)


def test_books_are_closed_when_every_message_is_in_one_place() -> None:
    assert CLOSED.is_closed
    assert not CLOSED._replace(left=9).is_closed
    assert not CLOSED._replace(decoded=90).is_closed
    assert not CLOSED._replace(doubled_rows=1).is_closed
