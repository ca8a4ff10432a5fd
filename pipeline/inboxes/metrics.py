"""What an engine is told of the inboxes of a process: Beam metrics.

Metrics can be touched inside a bundle only, and most of what happens to messages happens outside: threads
receive them and keep their leases, finalization acknowledges them. So each bundle tells, at its end, what the
tally has counted since another did, and how its process stands. What a bundle has told that fails afterwards
may be missing, and so is what is given back after the last one.
"""

from datetime import datetime, timedelta
from typing import Final

from apache_beam.metrics.metric import Metrics

from pipeline.inboxes import registry
from transforms.tally import tally_of

_SECOND: Final = timedelta(seconds=1)

# By name in the tally, which says more of them (pipeline.landing.Landed): messages, redeliveries included; of
# faults, receives.
_COUNTERS: Final = {
    "received": Metrics.counter("inboxes", "received_messages"),
    "redelivered": Metrics.counter("inboxes", "redelivered_messages"),
    "acknowledged": Metrics.counter("inboxes", "acknowledged_messages"),
    "unacknowledged": Metrics.counter("inboxes", "unacknowledged_messages"),
    "unconfirmed": Metrics.counter("inboxes", "unconfirmed_messages"),
    "released": Metrics.counter("inboxes", "released_messages"),
    "lost_leases": Metrics.counter("inboxes", "lost_leases"),
    "receive_faults": Metrics.counter("inboxes", "receive_faults"),
}
# All in whole seconds. Of the oldest message that is received, and neither acknowledged nor given back; or 0.
_OLDEST_HELD_AGE: Final = Metrics.gauge("inboxes", "oldest_held_message_age_secs")
# Of the watermark: what was enqueued before it, as far as it was received, is archived and handed on.
_WATERMARK_AGE: Final = Metrics.gauge("inboxes", "watermark_age_secs")
# Of the queue token that ends first; less than 0 when it has ended.
_TOKEN_REMAINING: Final = Metrics.gauge("inboxes", "token_remaining_secs")


def tell_engine(run_id: str, now: datetime) -> None:
    """Tell what a run's inboxes in this process have done since this was last called, and how they stand."""
    news = tally_of(run_id).take_news()
    for name, counter in _COUNTERS.items():
        if news[name]:
            counter.inc(news[name])
    oldest = registry.oldest_enqueued_at(run_id)
    _OLDEST_HELD_AGE.set(0 if oldest is None else (now - oldest) // _SECOND)
    watermark = registry.watermark(run_id)
    if watermark is not None:
        _WATERMARK_AGE.set((now - watermark) // _SECOND)
    token_expires_at = registry.token_expires_at(run_id)
    if token_expires_at is not None:
        _TOKEN_REMAINING.set((token_expires_at - now) // _SECOND)
