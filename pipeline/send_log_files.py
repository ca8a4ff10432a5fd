"""The send log's files as an inbox: JSON lines, followed as they grow.

A line becomes a message once it is whole. To acknowledge is to note in the positions file how far each file
has been read without a gap; whatever lies behind that comes again after a crash, under the same message ids.
One reader, on the machine that has the files.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, NamedTuple

from pipeline.clock import utc_now
from pipeline.errors import SendLogError
from pipeline.inboxes.inbox import Batch
from pipeline.send_log_slices import consumed_up_to, send_log_slices
from schemas.records import MnsMessage
from transforms.decode_sends import SEND_MESSAGE_TYPE
from transforms.file_store import sync_directory
from transforms.moments import from_ms, to_ms
from transforms.send_log import JSONL, Consumed, SendLogSlice
from transforms.tally import Tally, tally_of

# What the archive knows these messages by.
QUEUE_NAME: Final = "send-log-files"
_BATCH_MESSAGES: Final = 1000
_BUFFERED_BATCHES: Final = 8
# How often files are looked at for new lines, and how long a thread may overlook that the read has ended.
_LOOK_SECS: Final = 0.2
# Two inboxes of one process may note positions: the old one still has leases when the next is opened.
_NOTING: Final = threading.Lock()


@dataclass(frozen=True)
class SendLogFilesSpec:
    """How to open the inbox of some files; see ``pipeline.inboxes.inbox.InboxSpec``.

    Attributes:
        pattern: a directory, a file, or a glob; all files must be ``.jsonl``.
        positions: the file that says how far they were read; a lock and a temporary file stand beside it.
    """

    pattern: str
    positions: str

    @property
    def readers(self) -> int:
        """One: a file has no queue's way to share it."""
        return 1

    @property
    def batch_messages(self) -> int:
        """How many lines come together at most."""
        return _BATCH_MESSAGES

    def open(self, run_id: str, on_done: Callable[[], None]) -> SendLogFilesInbox:
        """Make an inbox; it is not started, and looks at no file before it is."""
        return SendLogFilesInbox(self, tally_of(run_id), on_done)


class _Span(NamedTuple):
    """Lines that were read together, and the bytes that they are in."""

    path: str
    start: int
    end: int
    messages: list[MnsMessage]


@dataclass
class _Progress:
    """How far one file was acknowledged: up to ``end``, and some spans behind that."""

    end: int
    behind: dict[int, int] = field(default_factory=dict)

    def acknowledge(self, span: _Span) -> None:
        """Note a span, and go on to the end of those that follow each other."""
        self.behind[span.start] = span.end
        while self.end in self.behind:
            self.end = self.behind.pop(self.end)


class SendLogFilesInbox:
    """Follows the files for one reader, for ever; see ``pipeline.inboxes.inbox.Inbox``.

    Event time is when a line was read: it is on the disk from then on, whatever it says of itself.
    """

    def __init__(self, spec: SendLogFilesSpec, tally: Tally, on_done: Callable[[], None]) -> None:
        """Prepare to read, counting into ``tally``."""
        self._spec = spec
        self._tally = tally
        self._on_done = on_done
        self._changed = threading.Condition()  # guards everything below
        self._buffer: deque[int] = deque()
        self._spans: dict[int, _Span] = {}
        self._held_spans = 0
        self._progress: dict[str, _Progress] = {}
        self._ends_under_way = 0
        self._watermark: datetime | None = None
        self._looked_at: datetime | None = None
        self._failure: Exception | None = None
        self._stopped = threading.Event()
        self._closed = threading.Event()
        self._reader = threading.Thread(target=self._run, name="follow-send-log", daemon=True)

    def start(self) -> None:
        """Begin to read."""
        self._reader.start()

    def take(self, timeout_secs: float) -> Batch | None:
        """Hand out the next lines, waiting for some up to ``timeout_secs``."""
        with self._changed:
            self._changed.wait_for(lambda: self._buffer or self.is_finished, timeout_secs)
            if not self._buffer or self._stopped.is_set():
                return None
            number = self._buffer.popleft()
            self._changed.notify_all()
            messages = self._spans[number].messages
            return Batch(messages, number, messages[0].enqueued_at)

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will be handed out."""
        return self._stopped.is_set() or (self._failure is not None and not self._buffer)

    @property
    def failure(self) -> Exception | None:
        """What ended the read, if something did."""
        return self._failure

    def watermark(self) -> datetime | None:
        """Return the watermark (UTC): when the files were last looked at, if nothing is held."""
        with self._changed:
            moment = self._oldest_enqueued_at() or self._looked_at
            if moment is not None and (self._watermark is None or moment > self._watermark):
                self._watermark = moment
            return self._watermark

    def oldest_enqueued_at(self) -> datetime | None:
        """Return when the oldest line held was read; None if none is."""
        with self._changed:
            return self._oldest_enqueued_at()

    def token_expires_at(self) -> datetime | None:
        """Return None: files need none."""
        return None

    def acknowledge(self, leases: Sequence[int]) -> None:
        """Note that lines need not come again; never raises."""
        with self._changed:
            spans = self._taken(leases)
            self._ends_under_way += 1
            for span in spans:
                self._progress[span.path].acknowledge(span)
            reached = {span.path: self._progress[span.path].end for span in spans}
        messages = sum(len(span.messages) for span in spans)
        try:
            if spans:
                _note_positions(self._spec.positions, reached)
                self._tally.add(acknowledged=messages)
        except Exception as failure:  # noqa: BLE001 - the engine would swallow it
            self._tally.add(unacknowledged=messages)
            self._fail(_in_a_sentence(failure, self._spec.positions))
        finally:
            with self._changed:
                self._ends_under_way -= 1
                self._changed.notify_all()

    def release(self, leases: Sequence[int]) -> None:
        """Hand lines out again; after a stop, leave them to the next reader."""
        with self._changed:
            spans = self._taken(leases)
            self._tally.add(released=sum(len(span.messages) for span in spans))
            if not self._stopped.is_set():
                self._buffer.extendleft(self._held(span) for span in reversed(spans))
            self._changed.notify_all()

    def stop(self) -> None:
        """Read and hand out nothing more."""
        with self._changed:
            if self._stopped.is_set():
                return
            self._stopped.set()
            spans = self._taken(self._buffer)
            self._tally.add(released=sum(len(span.messages) for span in spans))
            self._buffer.clear()
            self._changed.notify_all()

    def close(self) -> None:
        """Stop, forget what was not acknowledged, and wait for the thread."""
        self.stop()
        with self._changed:
            self.release(list(self._spans))
            self._closed.set()
            self._changed.notify_all()
        if self._reader.ident is not None:
            self._reader.join()

    # -- reading -----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._follow()
        except Exception as failure:  # noqa: BLE001 - a bug must end the read, not only this thread
            self._fail(_in_a_sentence(failure, self._spec.pattern))
        with self._changed:
            self._changed.wait_for(lambda: self._closed.is_set() or self._is_abandoned())
        if not self._closed.is_set():
            self._on_done()

    def _follow(self) -> None:
        known = _read_positions(self._spec.positions)
        while not self._stopped.is_set():
            began_at = from_ms(to_ms(utc_now()))
            for part in send_log_slices(self._spec.pattern, known):
                if not part.path.endswith(JSONL):
                    raise SendLogError(
                        f"The send log file {part.path} cannot be followed: --send_log must name .jsonl "
                        "files only, since an Avro or Parquet file is read once, whole."
                    )
                for span in _spans_of(part, began_at):
                    if not self._take_in(span):
                        return
                known[part.path] = consumed_up_to(part.path, part.end)
            with self._changed:
                self._looked_at = began_at
                self._changed.wait_for(self._stopped.is_set, _LOOK_SECS)

    def _take_in(self, span: _Span) -> bool:
        """Take lines in once there is room; tell whether there was before the end."""
        with self._changed:
            self._changed.wait_for(
                lambda: len(self._buffer) < _BUFFERED_BATCHES or self._stopped.is_set()
            )
            if self._stopped.is_set():
                return False
            progress = self._progress.setdefault(span.path, _Progress(span.start))
            if span.messages:
                self._buffer.append(self._held(span))
                self._tally.add(received=len(span.messages))
            else:
                progress.acknowledge(span)  # blank lines
            self._changed.notify_all()
        return True

    def _held(self, span: _Span) -> int:
        self._held_spans += 1
        self._spans[self._held_spans] = span
        return self._held_spans

    def _taken(self, numbers: Sequence[int] | deque[int]) -> list[_Span]:
        return [span for number in numbers if (span := self._spans.pop(number, None))]

    def _oldest_enqueued_at(self) -> datetime | None:
        return min((span.messages[0].enqueued_at for span in self._spans.values()), default=None)

    def _is_abandoned(self) -> bool:
        return self._stopped.is_set() and not self._spans and not self._ends_under_way

    def _fail(self, failure: Exception) -> None:
        with self._changed:
            self._failure = self._failure or failure
            self._changed.notify_all()
        self._tally.fail(failure)


def _spans_of(part: SendLogSlice, read_at: datetime) -> Iterator[_Span]:
    """Read a slice as messages, some at a time."""
    with open(part.path, "rb") as file:
        file.seek(part.start)
        lines = file.read(part.end - part.start).split(b"\n")
    start = part.start
    for first in range(0, len(lines), _BATCH_MESSAGES):
        end = start
        messages = []
        for line in lines[first : first + _BATCH_MESSAGES]:
            if line.strip():
                messages.append(
                    MnsMessage(
                        message_id=f"{part.path}#{end}",
                        queue_name=QUEUE_NAME,
                        message_type=SEND_MESSAGE_TYPE,
                        enqueued_at=read_at,
                        dequeue_count=1,
                        body=line,
                    )
                )
            end = min(end + len(line) + 1, part.end)  # the last one may have no newline yet
        yield _Span(part.path, start, end, messages)
        start = end


def _read_positions(path: str) -> dict[str, Consumed]:
    """How far files were read, by their absolute path.

    Raises:
        SendLogError: the file of positions is damaged, or cannot be read.
    """
    try:
        with open(path, "rb") as file:
            return {name: Consumed(**known) for name, known in json.load(file).items()}
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, AttributeError):
        raise SendLogError(
            f"The file {path}, which says how far the send log was read, is damaged: restore it from a copy, "
            "or delete it and the send log is read once more, which does no harm."
        ) from None
    except OSError as error:
        raise _in_a_sentence(error, path) from error


def _note_positions(path: str, reached: Mapping[str, int]) -> None:
    """Note how far files were read, so that a crash finds the old note or the new one, and never go back."""
    with _NOTING, _locked(f"{path}.lock"):
        known = _read_positions(path)
        for name, end in reached.items():
            if name not in known or known[name].end < end:
                known[name] = consumed_up_to(name, end)
        temporary = f"{path}.tmp"
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump({name: each._asdict() for name, each in known.items()}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        sync_directory(Path(path).absolute().parent)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    with open(path, "a", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _in_a_sentence(failure: Exception, path: str) -> Exception:
    """Turn what the disk says into the operator's sentence; anything else stays as it is."""
    if isinstance(failure, OSError):
        return SendLogError(
            f"{failure.filename or path} cannot be read or written ({failure.strerror}): mend its "
            "permissions, or make room on the disk."
        )
    return failure
