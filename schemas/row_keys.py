"""What tells the rows of a table apart, wherever the same row may come twice.

A stream writes at least once: after a crash rows come again, the same in all of these columns. None of them
holds a time that our own clock gave.
"""

from collections.abc import Mapping, Sequence
from typing import Final

# A message may hold several records (an HTTP-push array), so its id alone does not tell a record.
ROW_KEYS: Final[Mapping[str, Sequence[str]]] = {
    # An outcome is written again when its rank changes, when an earlier report speaks for it, and when its
    # send is found: an orphan has no requested_at.
    "enriched_reports": (
        "event_id",
        "revision",
        "success",
        "err_code",
        "message_id",
        "requested_at",
    ),
    "unreported_sends": ("event_id",),
    "inbound_sms": (
        "message_id",
        "phone_number",
        "send_time",
        "content",
        "dest_code",
        "sequence_id",
        "sign_name",
    ),
    "failed_events": ("event_id", "attempt"),
    "failed_sends": ("event_id", "attempt"),
    "query_answers": ("event_id", "message_id"),
}
