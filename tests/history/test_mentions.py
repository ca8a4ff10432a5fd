"""A biz_id is found in whatever can hold it, and what cannot hold it is passed over."""

import base64
import json

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.mentions import Sought

BIZ_ID = "706715193751989145^0"


def bodies(*each: bytes) -> pa.BinaryArray:
    return pa.array(each, pa.binary())


@settings(max_examples=50)
@given(
    biz_id=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=24),
    before=st.text(max_size=8),
    is_ascii=st.booleans(),
    is_packed=st.booleans(),
)
def test_a_body_that_holds_the_id_is_never_passed_over(
    biz_id: str, before: str, is_ascii: bool, is_packed: bool
) -> None:
    body = json.dumps({before: 1, "biz_id": biz_id}, ensure_ascii=is_ascii).encode(errors="replace")
    packed = base64.b64encode(body) if is_packed else body
    found = Sought(biz_id).may_be_in_bodies(bodies(b"", packed, b"")[1:])
    assert found.tolist()[0]
    assert Sought(biz_id).may_be_in(body)


def test_an_id_whose_characters_are_spelled_by_number_is_found() -> None:
    spelled = '{"biz_id": "' + "".join(f"\\u{ord(letter):04x}" for letter in BIZ_ID) + '"}'
    assert json.loads(spelled)["biz_id"] == BIZ_ID
    for packed in (spelled.encode(), base64.b64encode(spelled.encode())):
        assert Sought(BIZ_ID).may_be_in_bodies(bodies(packed)).tolist() == [True]


def test_other_bodies_are_passed_over() -> None:
    others = [json.dumps({"biz_id": f"7067151937519891{n:02}^0"}).encode() for n in range(40)]
    packed = bodies(*others, *map(base64.b64encode, others), base64.b64encode(BIZ_ID.encode()))
    found = Sought(BIZ_ID).may_be_in_bodies(packed)
    assert found.nonzero()[0].tolist() == [80]
    assert not Sought(BIZ_ID).may_be_in_bodies(bodies()).any()


@pytest.mark.parametrize(
    ("original", "is_in"),
    [
        (b'{"biz_id": "706715193751989145^0"', True),
        (base64.b64encode(b'{"biz_id": "706715193751989145^0", "')[:-2], True),
        (base64.encodebytes(b'{"a": "%s", "biz_id": "706715193751989145^0"' % (b"x" * 60)), True),
        (b"\xff706715193751989145^0,", True),
        (b'{"biz_id": "706715193751989145^01"}', False),
        (b'{"biz_id": "1706715193751989145^0"}', False),
        (b"", False),
        (b"=", False),
    ],
)
def test_bytes_that_need_not_decode_are_looked_through(original: bytes, is_in: bool) -> None:
    assert Sought(BIZ_ID).is_in(original) is is_in


def test_lines_are_given_with_their_places() -> None:
    first, other, last = (
        b'{"biz_id":"706715193751989145^0"}\n',
        b'{"biz_id":"1^0"}\n',
        b'{"biz_id":"\\u0037067"}',
    )
    found = list(Sought(BIZ_ID).lines(first + other + last))
    assert found == [(0, first), (len(first + other), last)]
    assert list(Sought(BIZ_ID).lines(other)) == []
