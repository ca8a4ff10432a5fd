"""What every sink promises: no row is missing, none is doubled after its id, an error is one sentence."""

import signal
from itertools import chain

import pytest

from pipeline.errors import OutputError
from tests.sinks.places import Place
from tests.sinks.samples import BUNDLES, EXPECTED, Element, contents
from tests.sinks.writer import Death, start_dying, write

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

EVERYTHING = list(chain.from_iterable(BUNDLES))
DEATHS = [Death(call, is_done) for call in (1, 3) for is_done in (False, True)]
# An object store differs from a directory in how a file is put there, and in nothing else.
without_s3 = pytest.mark.parametrize(
    "place", ["parquet", "avro", "topics", "bigquery"], indirect=True
)


def put(place: Place, *bundles: list[Element]) -> None:
    for bundle in bundles:
        write(place.kind, place.address, bundle, place.flags())


def test_every_row_arrives_as_it_is(place: Place) -> None:
    put(place, EVERYTHING)
    found = place.rows()
    assert contents(found) == EXPECTED
    assert len(found) == sum(map(len, EXPECTED.values())), "nothing failed, so nothing is repeated"


@without_s3
def test_a_bundle_that_is_run_again_leaves_no_row_twice(place: Place) -> None:
    first, second, *others = BUNDLES
    put(place, first, second, second, list(chain(second, *others)), list(reversed(first)))
    assert contents(place.rows()) == EXPECTED


@without_s3
def test_a_row_that_comes_twice_in_a_bundle_is_one_row(place: Place) -> None:
    put(place, EVERYTHING + EVERYTHING)
    assert contents(place.rows()) == EXPECTED


def test_a_place_that_takes_no_rows_is_told_in_a_sentence_and_nothing_is_lost(place: Place) -> None:
    place.close()
    with pytest.raises(OutputError, match=place.refusal) as failed:
        put(place, EVERYTHING)
    assert "13800000000" not in str(failed.value)

    place.open()
    put(place, EVERYTHING)

    assert contents(place.rows()) == EXPECTED


@without_s3
def test_workers_that_die_within_a_bundle_lose_and_double_nothing(place: Place) -> None:
    workers = [start_dying(place.kind, place.address, EVERYTHING, death) for death in DEATHS]
    for worker in workers:
        worker.join()
        assert worker.exitcode == -signal.SIGKILL, "it has died by itself"
        worker.close()

    put(place, EVERYTHING)

    assert contents(place.rows()) == EXPECTED
