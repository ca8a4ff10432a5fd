"""The edge where the machine's clock is read; everything below is given the time."""

from datetime import datetime, timezone


def utc_now() -> datetime:
    """Return the time, aware."""
    return datetime.now(timezone.utc)
