"""The limit of requests per second on a queue, for tests that want one (``--queue_qps``)."""

from __future__ import annotations

from emulator.mns_errors import MnsError


class QpsLimit:
    """Counts what each queue is asked within a second of the clock."""

    def __init__(self, per_sec: int) -> None:
        """Allow ``per_sec``; 0 is no limit."""
        self._per_sec = per_sec
        self._used: dict[str, tuple[int, int]] = {}

    def take(self, queue_name: str, count: int, now_ms: int) -> None:
        """Count a request that is worth ``count``; raises :class:`MnsError` to refuse it."""
        if not self._per_sec:
            return
        this_sec = now_ms // 1000
        counted_sec, used = self._used.get(queue_name, (this_sec, 0))
        used = count if counted_sec != this_sec else used + count
        if used > self._per_sec:
            raise MnsError("QpsLimitExceeded")
        self._used[queue_name] = this_sec, used
