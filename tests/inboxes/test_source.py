"""The source, with Beam's own machinery around it, on engines that treat readers well and badly."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from time import monotonic

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.utils.timestamp import MAX_TIMESTAMP

from pipeline.errors import QueueError
from pipeline.inboxes import registry
from pipeline.inboxes.inbox import InboxSpec
from pipeline.inboxes.reading import Reading
from pipeline.inboxes.source import ReadInboxes
from pipeline.stopping import forget_stop, request_stop
from schemas.records import MnsMessage
from tests.inboxes.engine import Bundle, Worker, starts
from tests.inboxes.post import Post, PostSpec, service

_RUN = "test-source"
_POLLED = Reading(max_bundle_messages=4, advance_wait_secs=0.0, poll_secs=0.2)
_LATE = Reading(max_bundle_messages=4, advance_wait_secs=0.0, poll_secs=0.2, acknowledges_late=True)
_Workers = Callable[[int], list[Worker]]


@pytest.fixture
def workers() -> Iterator[_Workers]:
    forget_stop()
    with ExitStack() as stack:

        def start(count: int) -> list[Worker]:
            started = [Worker() for _ in range(count)]
            for worker in started:
                stack.callback(worker.tear_down)
            return started

        yield start
    registry.close_run(_RUN)
    forget_stop()


def _start(reading: Reading, *specs: InboxSpec) -> list[bytes]:
    return starts(ReadInboxes(specs, reading, run_id=_RUN))


def _numbers(*bundles: Bundle) -> list[int]:
    ids = [message.message_id for bundle in bundles for message in bundle.messages]
    return [int(message_id.rpartition("-")[2]) for message_id in ids]


def _run(worker: Worker, position: bytes) -> tuple[Bundle, bytes]:
    bundle = worker.run(position)
    assert bundle.residual is not None
    return bundle, bundle.residual


def _rounds(workers: Sequence[Worker], position: bytes, count: int) -> tuple[list[Bundle], bytes]:
    """Run bundles, each in the next worker."""
    bundles = []
    for turn in range(count):
        bundle, position = _run(workers[turn % len(workers)], position)
        bundles.append(bundle)
    return bundles, position


def test_readers_that_come_and_go_share_one_inbox_until_the_last_is_closed(
    workers: _Workers,
) -> None:
    post = Post("come-and-go")
    (position,) = _start(_LATE, PostSpec(post.name))
    several = workers(5)
    for number in range(40):
        post.bring(number)
        bundle, position = _run(several[number % 5], position)
        assert _numbers(bundle) == [number]
        assert post.open_inboxes() == 1
    assert len(post.inboxes) == 1
    for worker in several:
        assert post.open_inboxes() == 1
        worker.tear_down()
    assert post.open_inboxes() == 0


def test_a_worker_that_keeps_its_reader_goes_on_with_it(workers: _Workers) -> None:
    post = Post("kept")
    post.bring(*range(10))
    (position,) = _start(_POLLED, PostSpec(post.name))
    bundles, _ = _rounds(workers(1), position, 4)
    assert [_numbers(bundle) for bundle in bundles] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9], []]
    for bundle in bundles:
        bundle.finalize()
    assert post.acknowledged == [*range(10)]


def test_a_bundle_has_no_more_messages_than_it_may_unless_one_batch_has(workers: _Workers) -> None:
    post = Post("sizes")
    post.bring(*range(13))
    small, large = _start(_POLLED, PostSpec(post.name, 3), PostSpec(post.name, 6))
    (worker,) = workers(1)
    assert _numbers(worker.run(small)) == [0, 1, 2]
    assert _numbers(worker.run(large)) == [3, 4, 5, 6, 7, 8]


def test_a_round_late_the_last_messages_are_acknowledged_while_nothing_comes(
    workers: _Workers,
) -> None:
    post = Post("late")
    post.bring(1, 2)
    (position,) = _start(_LATE, PostSpec(post.name))
    several = workers(3)
    first, position = _rounds(several, position, 3)
    for bundle in first:
        bundle.finalize()
    assert post.acknowledged == []
    second, position = _rounds(several, position, 2)
    for bundle in second:
        bundle.finalize()
    assert post.acknowledged == [1, 2]


@pytest.mark.parametrize("reading", [_POLLED, _LATE], ids=["at once", "late"])
def test_an_engine_that_goes_back_in_the_same_process_gets_everything_since_again(
    workers: _Workers, reading: Reading
) -> None:
    post = Post("back")
    post.bring(*range(12))
    (start,) = _start(reading, PostSpec(post.name))
    several = workers(2)
    (kept,), checkpoint = _rounds(several, start, 1)
    forgotten, _ = _rounds(several, checkpoint, 2)
    if reading.acknowledges_late:
        for bundle in (
            kept,
            *forgotten,
        ):  # all of them end before the worker hears of the checkpoint
            bundle.finalize()
    again, position = _rounds(several, checkpoint, 2)
    assert sorted(_numbers(*again)) == [*range(4, 12)]
    # Finalizations that come late, of what never happened.
    for bundle in forgotten:
        bundle.finalize()
    assert set(post.acknowledged) <= {0, 1, 2, 3}
    for _ in range(3):
        for bundle in again:
            bundle.finalize()
        again, position = _rounds(several, position, 1)
    assert sorted(post.acknowledged) == [*range(12)]


def test_a_position_of_another_process_opens_an_inbox_and_claims_nothing(workers: _Workers) -> None:
    post = Post("restored")
    post.bring(1, 2, 3)
    (start,) = _start(_POLLED, PostSpec(post.name))
    bundle, position = _run(workers(1)[0], start)
    registry.close_run(_RUN)  # as good as another process: nobody knows the mark
    bundle.finalize()
    assert post.acknowledged == []
    restored, _ = _run(workers(1)[0], position)
    assert _numbers(restored) == [1, 2, 3]
    restored.finalize()
    assert post.acknowledged == [1, 2, 3]


def test_going_back_to_the_position_of_another_process_is_going_back(workers: _Workers) -> None:
    post = Post("restored-twice")
    (position,) = _start(_POLLED, PostSpec(post.name))
    _, position = _rounds(workers(1), position, 9)
    registry.close_run(_RUN)
    post.bring(1)
    forgotten, _ = _run(workers(1)[0], position)
    again, _ = _run(workers(1)[0], position)
    assert _numbers(forgotten) == _numbers(again) == post.given_back == [1]
    forgotten.finalize()
    assert post.acknowledged == []


def test_what_a_failed_bundle_took_is_given_back_and_those_before_it_stand(
    workers: _Workers,
) -> None:
    post = Post("failed")
    (start,) = _start(_POLLED, PostSpec(post.name))
    (worker,) = workers(1)
    post.bring(1)
    before, position = _run(worker, start)
    post.bring(2, 3)
    worker.run(position, fail_after=2)
    assert post.given_back == [2, 3]
    before.finalize()
    retried, _ = _run(worker, position)
    retried.finalize()
    assert post.acknowledged == [1, 2, 3]


def test_a_bundle_that_fails_behind_the_source_is_given_back_when_it_is_tried_again(
    workers: _Workers,
) -> None:
    post = Post("fused")
    post.bring(1, 2)
    (start,) = _start(_POLLED, PostSpec(post.name))
    (worker,) = workers(1)
    worker.run(start)  # its finish_bundle fails, say
    retried, _ = _run(worker, start)
    assert _numbers(retried) == [1, 2] == post.given_back


def test_when_beam_closes_an_idle_reader_another_inbox_carries_on_with_the_marks(
    workers: _Workers,
) -> None:
    post = Post("idle")
    post.bring(1)
    start, other = _start(_LATE, PostSpec(post.name), PostSpec(Post("other").name))
    before, after = workers(2)
    first, position = _run(before, start)
    first.finalize()
    before.clock_secs += 61
    before.run(other)
    assert post.open_inboxes() == 0
    post.bring(2)
    second, position = _run(after, position)
    assert _numbers(second) == [2]
    assert post.open_inboxes() == 1
    second.finalize()
    assert post.acknowledged == [1]


def test_an_inbox_that_no_engine_asks_any_more_is_left_but_not_in_a_bundle(
    workers: _Workers,
) -> None:
    post = Post("forgotten")
    spec = PostSpec(post.name)
    (start,) = _start(_POLLED, spec)
    shared = registry.shared_inbox(_RUN, 0, spec, _POLLED)
    _, position = _run(workers(1)[0], start)
    in_a_bundle = shared.begin_bundle(0)
    shared.leave_if_idle(monotonic() + 61)
    assert post.open_inboxes() == 1
    shared.cut_mark(in_a_bundle)
    shared.leave_if_idle(monotonic() + 1)
    assert post.open_inboxes() == 1
    shared.leave_if_idle(monotonic() + 61)
    assert post.open_inboxes() == 0
    post.bring(1)
    assert _numbers(_run(workers(1)[0], position)[0]) == [1]


def test_a_failure_is_raised_after_the_bundle_before_it_and_the_next_try_gets_a_new_inbox(
    workers: _Workers,
) -> None:
    post = Post("broken")
    post.bring(1)
    (start,) = _start(_POLLED, PostSpec(post.name))
    worker, another = workers(2)  # where a reader stays open
    first, position = _run(another, start)
    post.failure = QueueError("no right to read")
    with pytest.raises(QueueError, match="no right to read"):
        worker.run(position)
    first.finalize()
    assert post.acknowledged == [1]
    post.failure = None
    post.bring(2)
    second, _ = _run(worker, position)
    assert _numbers(second) == [2]
    assert len(post.inboxes) == 2


def test_a_request_to_stop_ends_the_read_after_the_bundle_at_hand(workers: _Workers) -> None:
    post = Post("stopped")
    post.bring(1)
    (start,) = _start(_POLLED, PostSpec(post.name))
    (worker,) = workers(1)
    first, position = _run(worker, start)
    post.bring(2)
    request_stop()
    last = worker.run(position)
    assert (last.messages, last.residual, last.watermark) == ([], None, MAX_TIMESTAMP)
    first.finalize()
    assert post.acknowledged == [1]


def test_each_inbox_has_its_own_readers_and_none_waits_for_another(workers: _Workers) -> None:
    idle, busy = Post("idle-one"), Post("busy-one")
    busy.bring(1, 2)
    positions = _start(_POLLED, PostSpec(idle.name, readers=2), PostSpec(busy.name))
    (worker,) = workers(1)
    bundles = [worker.run(start) for start in positions]
    assert [_numbers(bundle) for bundle in bundles] == [[], [], [1, 2]]
    assert {*idle.timeouts_secs, *busy.timeouts_secs} == {0.0}
    assert len(idle.inboxes) == 2


def test_a_reader_that_is_asked_again_at_once_waits_itself(workers: _Workers) -> None:
    post = Post("patient")
    post.bring(1)
    (start,) = _start(Reading(max_bundle_secs=0.01, advance_wait_secs=0.5), PostSpec(post.name))
    workers(1)[0].run(start)
    first, *others = post.timeouts_secs
    assert first == 0.5
    assert max(others) <= 0.01


@pytest.mark.integration
def test_the_read_is_over_when_every_inbox_is() -> None:
    forget_stop()
    posts = [Post("first-of-two"), Post("second-of-two")]
    for post in posts:
        post.bring(*range(5))
    reading = Reading(max_bundle_messages=2, advance_wait_secs=0.01)
    specs = [PostSpec(post.name, ends=True) for post in posts]
    seen = Post("seen")
    options = PipelineOptions(flags=[])
    with beam.Pipeline(runner=FnApiRunner(), options=options) as pipeline:
        messages = pipeline | "ReadInboxes" >> ReadInboxes(specs, reading, run_id=_RUN)
        messages | "Note" >> beam.Map(_note)
    registry.close_run(_RUN)
    assert [post.acknowledged for post in posts] == [[*range(5)], [*range(5)]]
    assert sorted(seen.waiting) == sorted([*range(5)] * 2)


def _note(messages: list[MnsMessage]) -> None:
    service("seen").bring(*(int(message.message_id.rpartition("-")[2]) for message in messages))


def test_a_read_without_inboxes_is_refused() -> None:
    with pytest.raises(ValueError, match="no inboxes"):
        ReadInboxes([], _POLLED)
