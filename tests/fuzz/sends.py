"""Send log entries as messages bring them, JSON or Avro, and what must hold of their decoder.

Every body becomes an entry or is refused, whatever its neighbours; what is taken is what fastavro reads, and
no detail repeats anything that came in.
"""

import io
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

import fastavro

from schemas.contracts import contract
from tests.fuzz.inputs import PHONE, SECRETS, BytesRandom, cut, flip, insert, splice
from tests.fuzz.properties import discreet_logs, require_discretion
from tests.fuzz.send_logs import draw_line
from transforms.decode_sends import decode_sends, is_avro, single_object, texts_in
from transforms.send_log_checks import CONTRACT_NAME

_CONTRACT: Final = contract(CONTRACT_NAME)
_HEAD: Final = 10
_TEXTS: Final = ["", "a", "\0", "中文😀", "a" * 70, "0" * 24, *SECRETS]
_TIMES: Final = [
    0,
    -1,
    1_793_505_600_000,
    253_402_214_399_999,
    253_402_214_400_000,
    2**63 - 1,
    -(2**63),
]
_PIECES: Final = [b"\0", b"\1", b"\2", b"\x80", b"\xff" * 10, b"\x80" * 9 + b"\1", b"\xc3\1", b"1"]


def draw_body(random: Random) -> bytes:
    """Draw a body: most are entries or nearly so."""
    if random.randrange(3) == 0:
        return draw_line(random)
    texts = {
        name: random.choice(_TEXTS) for name in ("sign_name", "campaign") if random.randrange(2)
    }
    entry = {
        "biz_id": random.choice(["900619746936498440^0", "1", ""]),
        "phone_number": random.choice([PHONE, PHONE, "2"]),
        "requested_at": random.choice(_TIMES) if random.randrange(2) else _TIMES[2],
        "tags": {random.choice(_TEXTS): random.choice(_TEXTS) for _ in range(random.randrange(3))},
        **texts,
    }
    encoded = io.BytesIO()
    fastavro.schemaless_writer(encoded, _CONTRACT.schema, entry)
    body = single_object(_CONTRACT.fingerprint, encoded.getvalue())
    for _ in range(random.choice((0, 0, 1, 1, 2))):
        body = random.choice(_TAMPERINGS)(random, body)
    return body


def body_from_bytes(data: bytes) -> bytes:
    """Read a fuzzer's bytes as a datum, as a whole body, or as the choices that draw one."""
    way, data = data[:1], data[1:]
    if way > b"\xaa":
        return draw_body(BytesRandom(data))
    return single_object(_CONTRACT.fingerprint, data) if way > b"\x55" else data


def check_bodies(bodies: Sequence[bytes]) -> Counter[str]:
    """Decode bodies together and one by one, hold what comes out to everything, and count it."""
    with discreet_logs():
        together = decode_sends(bodies)
    require_discretion({each.error.detail for each in together.refused})
    _CONTRACT.require_batch(together.entries)
    together.entries.validate(full=True)
    refused = {each.position: each for each in together.refused}
    assert len(refused) + len(together.entries) == len(bodies)
    taken: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    for index, body in enumerate(bodies):
        alone = decode_sends([body])
        if index in refused:
            (one,) = alone.refused
            assert (one.stage, str(one.error)) == (refused[index].stage, str(refused[index].error))
            assert one.original == refused[index].original == body
            counts[one.error.reason] += 1
        else:
            (entry,) = alone.entries.to_pylist(maps_as_pydicts="strict")
            taken.append(entry)
            counts["avro" if is_avro(body) else "json"] += 1
            if is_avro(body):
                _check_avro(entry, body)
    assert sorted(map(repr, taken)) == sorted(
        map(repr, together.entries.to_pylist(maps_as_pydicts="strict"))
    )
    return counts


def _check_avro(entry: dict[str, Any], body: bytes) -> None:
    """Compare an entry with what another reader makes of its bytes."""
    datum = io.BytesIO(body[_HEAD:])
    assert fastavro.schemaless_reader(datum, _CONTRACT.schema, None) == entry
    assert not datum.read(1)
    assert entry["biz_id"] in (texts_in(body) or [])


def _tamper_head(random: Random, body: bytes) -> bytes:
    return flip(random, body[:_HEAD]) + body[_HEAD:]


def _tamper_datum(random: Random, body: bytes) -> bytes:
    return body[:_HEAD] + flip(random, body[_HEAD:])


_TAMPERINGS: Final[list[Callable[[Random, bytes], bytes]]] = [
    _tamper_head,
    _tamper_datum,
    _tamper_datum,
    cut,
    splice,
    lambda random, body: insert(random, body, random.choice(_PIECES)),
    lambda random, body: body + random.choice(_PIECES),
]
