"""Settings of a subscription are right, or refused with the flag and the fix."""

from typing import Any

import pytest

from pipeline.options_stream import stream_options
from pipeline.pubsub.settings import PubSubSettings
from pipeline.pubsub.spec import PubSubInboxSpec
from tests.job.test_stream_options import FLINK

NAME = "projects/my-project/subscriptions/send-log"


@pytest.mark.parametrize(
    "name", [NAME, "projects/example.com:my-project/subscriptions/a-Z0_.~+%", f"{NAME}{'x' * 247}"]
)
def test_a_full_name_is_taken(name: str) -> None:
    settings = PubSubSettings(name)
    assert name.endswith(f"/{settings.subscription_id}")
    spec = PubSubInboxSpec(settings)
    assert (spec.readers, spec.batch_messages) == (1, 1000)


@pytest.mark.parametrize(
    "name",
    [
        "send-log",
        "projects/my-project/topics/send-log",
        "projects/my-project/subscriptions/1send-log",
        "projects/my-project/subscriptions/send/log",
        "projects/my-project/subscriptions/..",
        f"{NAME}{'x' * 248}",
        f"{NAME}\n",
        "",
    ],
)
def test_what_is_no_full_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="^--send_log_subscription: .* write it in full"):
        PubSubSettings(name)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"readers": 0}, "readers must be at least 1"),
        ({"fetchers": 0}, "fetchers must be at least 1"),
        ({"pull_messages": 1001}, "pull_messages must be 1-1000"),
        ({"wait_secs": 0}, "wait_secs must be 1-30"),
        ({"ack_deadline_secs": 9}, "ack_deadline_secs must be 10-600"),
        ({"ack_deadline_secs": 601}, "ack_deadline_secs must be 10-600"),
        ({"max_hold_secs": 59.0}, "max_hold_secs must be at least ack_deadline"),
        ({"stop_secs": 21.0}, "stop_secs must be more than 0 and at most 20"),
    ],
)
def test_a_wrong_value_is_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=f"^{said}"):
        PubSubSettings(NAME, **wrong)


@pytest.mark.parametrize(("interval_ms", "hold_secs"), [(10_000, 600.0), (600_000, 2522.0)])
def test_what_is_never_acknowledged_is_let_go_soon_after_it_could_have_been(
    interval_ms: int, hold_secs: float
) -> None:
    options = stream_options(
        [
            *FLINK,
            f"--checkpointing_interval={interval_ms}",
            "--mns_max_hold_secs=7200",
            f"--send_log_subscription={NAME}",
        ]
    )
    assert [each.max_hold_secs for each in options.subscriptions] == [hold_secs]
    assert PubSubSettings(NAME).max_hold_secs == 600
