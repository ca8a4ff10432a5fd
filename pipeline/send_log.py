"""The send log, written: what the application's own sending code calls after ``SendSms``.

It imports nothing but the standard library, so that a sending service can use it without Beam, Arrow
or anything else of this project::

    from pipeline.send_log import SendLog

    send_log = SendLog("/var/lib/sms/send-log")  # a directory: one file per UTC day
    requested_at = datetime.now(timezone.utc)
    response = client.send_sms(request)
    if response.body.code == "OK":
        send_log.append(
            biz_id=response.body.biz_id,
            phone_number=["13800000000", "13900000000"],  # whom the call addressed
            requested_at=requested_at,
            sign_name="Example",
            template_code="SMS_1",
            campaign="spring",
        )

A report is joined with its send by ``(biz_id, phone_number)``: write the number exactly as it was given
to ``SendSms``. The format is JSON lines, one send per line, field by field the ``send_log_entry`` contract;
an application in another language writes the same lines itself.
"""

import fcntl
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Final, TypeGuard

_SUFFIX: Final = ".jsonl"
# Phone numbers are personal data: nobody but the owner and the group may read the log.
_FILE_MODE: Final = 0o640


class SendLog:
    """Append to a send log, from any number of threads and processes at once.

    Every call locks the file, writes all of its lines in one piece at the end of it, and (unless told
    otherwise) waits until they are on the disk. Nothing is kept open between calls, so an instance may be
    shared by threads and may cross a ``fork``. POSIX systems only; a network file system must have locks.

    A log may only grow under its name: to begin a new one, begin a new file, or log into a directory.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Choose where to write; a missing directory is created by the first call.

        Args:
            path: a file whose name ends in ``.jsonl``, or a directory, which gets one file per UTC day
                of ``requested_at`` (``2026-11-01.jsonl``).

        Raises:
            ValueError: the path is neither.
        """
        self._path: Final = Path(path)
        self._has_daily_files: Final = self._path.is_dir() or not self._path.suffix
        is_other_file = (
            self._path.is_file() if self._has_daily_files else self._path.suffix != _SUFFIX
        )
        if is_other_file:
            raise ValueError(f"{self._path} must be a directory or a file ending in {_SUFFIX}")

    def append(  # noqa: PLR0913 -- a send has so many fields
        self,
        *,
        biz_id: str,
        phone_number: str | Sequence[str],
        requested_at: datetime,
        out_id: str | None = None,
        sign_name: str | None = None,
        template_code: str | None = None,
        template_param: str | None = None,
        sms_up_extend_code: str | None = None,
        campaign: str | None = None,
        tags: Mapping[str, str] | None = None,
        request_id: str | None = None,
        fsync: bool = True,
    ) -> None:
        """Log one accepted ``SendSms`` call: one line per recipient, all of them or none.

        Args:
            biz_id: as the response gave it.
            phone_number: the recipient, or all recipients of the call; as given to ``SendSms``.
            requested_at: aware; when the call was made. Kept to the millisecond.
            out_id: as given to ``SendSms``, like the next four.
            sign_name: as given to ``SendSms``.
            template_code: as given to ``SendSms``.
            template_param: the JSON text given to ``SendSms``. A one-time password in it is a secret:
                leave it out.
            sms_up_extend_code: as given to ``SendSms``.
            campaign: a name to report by.
            tags: anything else to report by.
            request_id: as the response gave it.
            fsync: wait for the disk. Without it a power cut (not a crash of the process) may lose sends.

        Raises:
            ValueError: a value that the pipeline would refuse; the text names the field, never the value.
            OSError: the log cannot be written.
        """
        entries = entries_of(
            phone_number,
            biz_id=biz_id,
            requested_at=requested_at,
            out_id=out_id,
            sign_name=sign_name,
            template_code=template_code,
            template_param=template_param,
            sms_up_extend_code=sms_up_extend_code,
            campaign=campaign,
            tags=tags,
            request_id=request_id,
        )
        self.append_all(entries, fsync=fsync)

    def append_all(self, entries: Iterable[Mapping[str, object]], *, fsync: bool = True) -> None:
        """Log many sends with one write per file; for ``SendBatchSms``, whose recipients differ.

        Args:
            entries: the arguments of :meth:`append`, one mapping and one ``phone_number`` per send.
            fsync: as in :meth:`append`.

        Raises:
            ValueError: an entry that the pipeline would refuse; then nothing at all is written.
            OSError: the log cannot be written. If the disk is full, whole lines may have been written.
        """
        lines_of: dict[Path, list[bytes]] = {}
        for entry in entries:
            fields, requested_at = checked(entry)
            line = json_line(fields, requested_at) + b"\n"
            file = self._path
            if self._has_daily_files:
                file /= f"{requested_at:%Y-%m-%d}{_SUFFIX}"
            lines_of.setdefault(file, []).append(line)
        for file, lines in lines_of.items():
            _append_lines(file, b"".join(lines), fsync=fsync)


REQUIRED_TEXTS: Final = ("biz_id", "phone_number")
OPTIONAL_TEXTS: Final = (
    "out_id",
    "sign_name",
    "template_code",
    "template_param",
    "sms_up_extend_code",
    "campaign",
    "request_id",
)
_YEARS: Final = range(1971, 9999)
_FIELDS: Final = frozenset({*REQUIRED_TEXTS, *OPTIONAL_TEXTS, "requested_at", "tags"})


Fields = dict[str, str | dict[str, str]]


def checked(entry: Mapping[str, object]) -> tuple[Fields, datetime]:
    """Check an entry; return its fields but those that are None, and its ``requested_at`` in UTC.

    Raises:
        ValueError: the pipeline would refuse it.
    """
    unknown = entry.keys() - _FIELDS
    if unknown:
        raise ValueError(f"a send has no field {', '.join(sorted(map(str, unknown)))}")
    requested_at = _utc(entry.get("requested_at"))
    tags = _tags(entry.get("tags"))
    return {**_texts(entry), **({"tags": tags} if tags else {})}, requested_at


def json_line(fields: Fields, requested_at: datetime) -> bytes:
    """Lay checked fields out as a line, without its end.

    Raises:
        ValueError: one of them is not text.
    """
    moment = requested_at.isoformat(timespec="milliseconds").removesuffix("+00:00")
    every = {**fields, "requested_at": f"{moment}Z"}
    try:
        return json.dumps(every, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        raise ValueError("a field holds half of a surrogate pair, which is not text") from None


def entries_of(phone_number: str | Sequence[str], **shared: object) -> list[dict[str, object]]:
    """Lay out a call as an entry per recipient.

    Raises:
        ValueError: it has none.
    """
    recipients = [phone_number] if isinstance(phone_number, str) else list(phone_number)
    if not recipients:
        raise ValueError("phone_number is empty: name at least one recipient")
    return [{**shared, "phone_number": recipient} for recipient in recipients]


def _texts(entry: Mapping[str, object]) -> dict[str, str]:
    """Take the fields that are text, without those that are None."""
    texts: dict[str, str] = {}
    for field in (*REQUIRED_TEXTS, *OPTIONAL_TEXTS):
        value = entry.get(field)
        if _is_text(value) and (value or field in OPTIONAL_TEXTS):
            texts[field] = value
        elif field in REQUIRED_TEXTS:
            raise ValueError(f"{field} must be text that is not empty")
        elif value is not None:
            raise ValueError(f"{field} must be text or None")
    if "," in texts["phone_number"]:
        raise ValueError("phone_number holds several numbers: pass them as a list")
    return texts


def _is_text(value: object) -> TypeGuard[str]:
    """Tell text that can be stored; a NUL character cannot."""
    return isinstance(value, str) and "\x00" not in value


def _utc(requested_at: object) -> datetime:
    if not isinstance(requested_at, datetime) or requested_at.utcoffset() is None:
        raise ValueError("requested_at must be an aware datetime, as datetime.now(timezone.utc) is")
    if requested_at.year not in _YEARS:
        raise ValueError(
            "requested_at must lie in the years that the pipeline stores, 1971 to 9998"
        )
    return requested_at.astimezone(timezone.utc)


def _tags(tags: object) -> dict[str, str]:
    if tags is None:
        return {}
    if not isinstance(tags, Mapping):
        raise ValueError("tags must map text to text")  # noqa: TRY004 -- one error to catch
    if not all(_is_text(text) for pair in tags.items() for text in pair):
        raise ValueError("tags must map text to text")
    return dict(tags)


def _append_lines(file: Path, lines: bytes, *, fsync: bool) -> None:
    """Put whole lines at the end of the file, under its lock."""
    file.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            # A writer died inside its write: its torn line must not swallow ours.
            lines = b"\n" + lines
        written = os.write(descriptor, lines)
        if written < len(lines):
            # The disk is full. Readers may already have taken the whole lines; only the torn one goes.
            os.ftruncate(descriptor, size + lines.rfind(b"\n", 0, written) + 1)
            raise OSError(f"{file} could not be written in full: is the disk full?")
        if fsync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if fsync and size == 0:
        _fsync_directory(file.parent)


def _fsync_directory(directory: Path) -> None:
    """Make the name of a new file survive a power cut, too."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
