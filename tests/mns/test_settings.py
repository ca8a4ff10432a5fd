"""Settings that cannot work are refused with the flag's name."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.inboxes.backoff import backoff_secs
from pipeline.mns.settings import MnsSettings, Until, message_type_of

_QUEUE = "Alicom-Queue-1000000000000001-SmsReport"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"queues": ()}, "--mns_queues is empty"),
        ({"queues": ("no/queue",)}, "is no queue name"),
        ({"queues": ("q" * 121,)}, "is no queue name"),
        ({"queues": (_QUEUE, _QUEUE)}, "names a queue twice"),
        ({"mns_endpoint": "1943695596114318.mns.cn-hangzhou.aliyuncs.com"}, "--mns_endpoint must"),
        ({"dybaseapi_endpoint": "http://host/path"}, "--dybaseapi_endpoint must"),
        ({"mns_endpoint": "http://host:99999"}, "--mns_endpoint must"),
        ({"mns_endpoint": "http://host:port"}, "--mns_endpoint must"),
        ({"mns_endpoint": "http://name:password@host"}, "--mns_endpoint must"),
        ({"mns_endpoint": "http://host?query"}, "--mns_endpoint must"),
        ({"max_bundle_secs": float("nan")}, "--mns_max_bundle_secs"),
        ({"max_hold_secs": float("inf")}, "--mns_max_hold_secs"),
        ({"wait_secs": 31}, "--mns_wait_secs must be 0-30"),
        ({"fetchers": 0}, "--mns_fetchers must be at least 1"),
        ({"max_bundle_secs": 0}, "--mns_max_bundle_secs"),
        ({"visibility_timeout_secs": 43_201}, "--mns_visibility_timeout_secs must be 1-43200"),
        ({"renewal_margin_secs": 31}, "--mns_renewal_margin_secs"),
        ({"max_bundle_secs": 21}, "at least 3 times"),
        ({"max_hold_secs": 59}, "--mns_max_hold_secs"),
        ({"stop_secs": 0}, "--mns_stop_secs must be more than 0"),
        ({"stop_secs": 21}, "--mns_stop_secs must be more than 0 and at most 20"),
    ],
)
def test_a_setting_that_cannot_work_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        MnsSettings(**{"queues": (_QUEUE,), **changes})


@pytest.mark.parametrize("bounds", [{"max_messages": 0}, {"max_secs": 0}])
def test_a_bound_that_reads_nothing_is_refused(bounds: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Until(**bounds)


def test_the_message_type_is_the_suffix_of_the_queue() -> None:
    assert message_type_of(_QUEUE) == "SmsReport"


def test_pauses_double_up_to_a_limit_and_are_half_random() -> None:
    assert [backoff_secs(n, 1.0, 5.0, lambda: 1.0) for n in (1, 2, 3, 4, 1000)] == [1, 2, 4, 5, 5]
    assert backoff_secs(3, 1.0, 5.0, lambda: 0.0) == 2.0
