"""Beam's log: it shows the traceback of every step that raised, also of what is then said in a sentence."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

# Where Beam 2.77 logs the traceback of a step that raised.
_LOGGERS: Final = ("apache_beam.runners.common", "apache_beam.runners.worker.sdk_worker")


@contextmanager
def unlogged(is_said: Callable[[logging.LogRecord], bool]) -> Iterator[None]:
    """Keep those records off the log that are said in a sentence, by the caller or at the end; show bugs."""

    def is_logged(record: logging.LogRecord) -> bool:
        is_by_hand = record.exc_info and isinstance(record.exc_info[1], KeyboardInterrupt)
        return not (is_by_hand or is_said(record))

    with ExitStack() as stack:
        for logger in map(logging.getLogger, _LOGGERS):
            logger.addFilter(is_logged)
            stack.callback(logger.removeFilter, is_logged)
        yield
