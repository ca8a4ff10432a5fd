"""Lines of a send log as they might be written, and what must hold of their reader.

Every line that is not blank becomes an entry or is refused, whatever its neighbours; entries fit the
contract, what is refused keeps its bytes and its place, and no detail repeats anything that came in.
"""

import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

import fastavro

from schemas.contracts import contract
from tests.fuzz.inputs import ODD_NAMES, ODD_VALUES, PHONE, SECRETS, BytesRandom, tamper
from tests.fuzz.properties import discreet_logs, require_discretion
from transforms.moments import EARLIEST, LATEST
from transforms.send_log_checks import Checked, Refused
from transforms.send_log_lines import check_lines

_OFFSET: Final = 1000  # of a block in its file
_JUDGED: Final = 16  # as for messages: fastavro judges one entry in so many,
_ALONE: Final = 8  # and one line in so many is read by itself

_ENTRY: Final[dict[str, Any]] = {
    "biz_id": "900619746936498440^0",
    "phone_number": PHONE,
    "out_id": SECRETS[3],
    "sign_name": SECRETS[2],
    "template_code": "SMS_1",
    "template_param": '{"code":"0420"}',
    "campaign": None,
    "tags": {"team": "growth", "variant": ""},
    "requested_at": "2026-11-01T08:00:00.123456+08:00",
}
_TIMES: Final[list[Any]] = [
    "2026-11-01T00:00:00Z", "2026-11-01T00:00:00z", "2026-11-01 00:00:00Z", "2026-11-01T00:00:00",
    "2026-11-01T00:00:00+0800", "2026-11-01T00:00:00+08", "2026-11-01T00:00:00-23:59", "20261101T000000Z",
    "2026-11-01T00:00:00.123456789Z", "2026-11-01T24:00:00Z", "2026-11-01T23:59:60Z", "2026-02-29T00:00:00Z",
    "1970-01-01T00:00:00Z", "1970-01-01T00:00:00+08:00", "9999-12-31T00:00:00+00:01", "9999-12-31T00:00:00Z",
    "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00", "0000-01-01T00:00:00Z", "2026-11-01", "",
    "2026-W45-7T00:00:00Z", "２026-11-01T00:00:00Z", 1793548800, 1793548800000, 1793548800.5, None, True,
]  # fmt: skip
_TAGS: Final[list[Any]] = [
    {}, None, [], "", {"a": None}, {"a": 1}, {"": ""}, {"a": "\x00"}, {"\x00": "a"}, {PHONE: SECRETS[4]},
    {"a": {"b": "c"}}, {"\ud800": "a"}, {"中": "文"}, [["a", "b"]],
]  # fmt: skip
_BLANKS: Final = (b"", b" ", b"\t \r", b"\x0b\x0c")


def draw_line(random: Random) -> bytes:
    """Draw one line: an entry, something near one, or nothing of the sort; no newline in it."""
    if not random.randrange(20):
        return random.choice(_BLANKS)
    fields = dict(_ENTRY)
    for _ in range(random.choice((0, 0, 0, 1, 1, 2))):
        random.choice(_CHANGES)(random, fields)
    text = json.dumps(fields, ensure_ascii=bool(random.randrange(2))).encode(errors="surrogatepass")
    for _ in range(random.choice((0, 0, 0, 0, 1, 2))):
        text = tamper(random, text)
    return text.replace(b"\n", b" ")


def line_from_bytes(data: bytes) -> bytes:
    """Read a fuzzer's bytes as a line: half of them as they are, half as the choices that draw one."""
    line = draw_line(BytesRandom(data[1:])) if data[:1] > b"\x7f" else data[1:]
    return line.replace(b"\n", b" ")


def check_lines_of_log(lines: Sequence[bytes]) -> Counter[str]:
    """Read lines in one block, hold what comes out to everything, and count it."""
    with discreet_logs():
        checked = check_lines(b"\n".join(lines), _OFFSET)
    require_discretion({refused.error.detail for refused in checked.refused})
    contract("send_log_entry").require_batch(checked.entries)
    checked.entries.validate(full=True)
    entries = iter(checked.entries.to_pylist(maps_as_pydicts="strict"))
    refused = {each.position: each for each in checked.refused}
    counts = Counter(lines=len(lines), entries=len(checked.entries), refused=len(checked.refused))
    position = _OFFSET
    for number, line in enumerate(lines):
        if position in refused:
            _check_refusal(refused.pop(position), line)
        elif line.strip():
            _check_entry(next(entries), line)
        else:
            counts["blank lines"] += 1
        if number % _ALONE == 0:
            _check_alone(line, checked, position)
        position += len(line) + 1
    assert not refused, "a refusal stands where no line begins"
    assert not [*entries], "more entries than lines"
    return counts


def _check_refusal(refused: Refused, line: bytes) -> None:
    assert refused.original == line
    assert line.strip(), "a blank line is refused"
    assert "expected a record" not in refused.error.detail, "nobody knows why a line was refused"


def _check_entry(entry: dict[str, Any], line: bytes) -> None:
    """Compare an entry with what another parser makes of its line."""
    written = json.loads(line)
    assert not written.keys() - entry.keys()
    given = {name: written.get(name) for name in entry if name != "requested_at"}
    assert entry == {
        **given,
        "tags": written.get("tags", {}),
        "requested_at": entry["requested_at"],
    }
    assert EARLIEST <= entry["requested_at"] < LATEST
    if len(line) % _JUDGED == 0:
        schema = contract("send_log_entry").schema
        fastavro.schemaless_writer(io.BytesIO(), schema, entry, strict=True)


def _check_alone(line: bytes, together: Checked, position: int) -> None:
    alone = check_lines(line, position)
    assert len(alone.entries) + len(alone.refused) == bool(line.strip())
    places = [each.position for each in together.refused]
    assert [each.position for each in alone.refused] == [p for p in places if p == position]


def _set(random: Random, fields: dict[str, Any]) -> None:
    fields[random.choice(list(fields) or list(_ENTRY))] = random.choice(ODD_VALUES)


def _set_time(random: Random, fields: dict[str, Any]) -> None:
    fields["requested_at"] = random.choice(_TIMES)


def _set_tags(random: Random, fields: dict[str, Any]) -> None:
    fields["tags"] = random.choice(_TAGS)


def _remove(random: Random, fields: dict[str, Any]) -> None:
    if fields:
        del fields[random.choice(list(fields))]


def _add(random: Random, fields: dict[str, Any]) -> None:
    fields[random.choice(ODD_NAMES)] = random.choice(ODD_VALUES)


_CHANGES: Final[list[Callable[[Random, dict[str, Any]], None]]] = [
    _set, _set, _set_time, _set_time, _set_tags, _remove, _add,
]  # fmt: skip
