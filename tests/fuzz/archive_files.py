"""Files of the archive after what a disk can do to them, and what must hold of their reader.

What comes out is what went in, and what does not come out is counted: never a message that nobody received,
never one that is missing without a word.
"""

import tempfile
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

from schemas.contracts import contract
from schemas.records import MnsMessage
from tests.fuzz.inputs import BytesRandom, cut, draw_message, flip, splice
from tests.fuzz.properties import discreet_logs
from transforms.archive import read_archive, write_archive_file

_QUEUE: Final = "Alicom-Queue-1000000000000001-SmsReport"
_FIRST_ENQUEUED_AT: Final = datetime(2026, 11, 1, tzinfo=timezone.utc)


class ArchiveDamage(NamedTuple):
    """The messages of a file, and the seed of what happens to the file."""

    messages: list[MnsMessage]
    seed: int


def draw_archive_damage(random: Random) -> ArchiveDamage:
    """Draw some messages, at times enough for several blocks, and some damage."""
    filler_bytes = random.choice((0, 0, 40_000))
    bodies = [
        draw_message(random).body + random.randbytes(filler_bytes)
        for _ in range(random.choice((1, 3, 30)))
    ]
    messages = [
        MnsMessage(
            f"M{number}",
            _QUEUE,
            "SmsReport",
            _FIRST_ENQUEUED_AT + timedelta(seconds=number),
            1,
            body,
        )
        for number, body in enumerate(bodies)
    ]
    return ArchiveDamage(messages, random.getrandbits(32))


def archive_damage_from_bytes(data: bytes) -> ArchiveDamage:
    """Draw messages and damage as a fuzzer's bytes decide."""
    return draw_archive_damage(BytesRandom(data))


def check_archive_damage(files: Sequence[ArchiveDamage]) -> Counter[str]:
    """Write files, damage and read them, and count what became of their messages."""
    counts: Counter[str] = Counter(files=len(files))
    with discreet_logs(), tempfile.TemporaryDirectory() as archive:
        for messages, seed in files:
            path = Path(write_archive_file(archive, messages, _FIRST_ENQUEUED_AT))
            is_damaged = _damage(path, Random(seed))  # noqa: S311 - nothing to keep secret
            read = read_archive(str(path))
            rows = [tuple(row.values()) for batch in read.batches for row in batch.to_pylist()]
            assert not Counter(rows) - Counter(map(tuple, messages)), "nobody received this message"
            assert len(rows) + read.lost == len(messages)
            assert bool(read.lost) == bool(read.damaged)
            assert is_damaged or not read.lost
            for batch in read.batches:
                contract("mns_message").require_batch(batch)
            counts.update(messages=len(messages), read=len(rows), lost=read.lost)
    return counts


def _damage(path: Path, random: Random) -> bool:
    content = path.read_bytes()
    for _ in range(random.choice((0, 1, 1, 1, 2))):
        content = random.choice((flip, flip, flip, flip, splice, cut))(random, content)
    is_damaged = content != path.read_bytes()
    path.write_bytes(content)
    return is_damaged
