"""A phone number is found however it is written, and nothing else is taken for it."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.phone_numbers import NotANumberError, Numbers, PhoneNumber

PERSON = "13812345678"
NUMBERS = Numbers([PERSON])

WRITTEN = {
    "as it is": PERSON,
    "country code": f"86{PERSON}",
    "plus": f"+86{PERSON}",
    "zeros": f"0086{PERSON}",
    "trunk zero": f"0{PERSON}",
    "in text": f"请致电{PERSON}，谢谢",
    "groups": "138 1234 5678",
    "hyphens": "+86-138-1234-5678",
    "full width": "１３８１２３４５６７８",
    "full width with code": "＋８６１３８１２３４５６７８",
    "after a letter": f"id{PERSON}x",
    "beside other digits": f"2026-11-01 {PERSON} 12",
    "escaped": r"\u0031\u00338\u0031\u0032345678",
    "escaped full width": r"\uFF11\uff13812345678",
    "escaped twice": r"\\u003138\\u00312345678",
    "after an escape that ends in a digit": rf"\u4e09{PERSON}",
    "escaped hyphen": r"138\u002d1234\u002D5678",
    "JSON": json.dumps({"content": f"三{PERSON}"}),
    "UTF-16": f"a{PERSON}".encode("utf-16-le"),
    "UTF-16, the other way": f"a{PERSON}".encode("utf-16-be"),
    "UTF-32": PERSON.encode("utf-32"),
    "among bytes that are no text": b"\xff\x00" + PERSON.encode() + b"\xfe",
    "beside NUL": b"5\x00" + PERSON.encode() + b"\x005",
    "GBK": f"手机{PERSON}好".encode("gbk"),
}
ANOTHER = {
    "a longer run": f"{PERSON}9",
    "a longer run before": f"9{PERSON}",
    "an identifier": f"900{PERSON}498440^0",
    "a foreign prefix": f"85{PERSON}",
    "one digit less": PERSON[:-1],
    "one digit other": "13812345679",
    "milliseconds": f"{PERSON}00",
    "a date between": "138-2026-11-01",
    "across fields": '"1381234","5678"',
    "an escape that continues it": rf"{PERSON}\u0031",
    "full width that continues it": f"{PERSON}１",
    "nothing": "",
}


@pytest.mark.parametrize("text", WRITTEN.values(), ids=WRITTEN)
def test_a_number_is_found_however_it_is_written(text: str | bytes) -> None:
    as_bytes = text if isinstance(text, bytes) else text.encode()

    assert NUMBERS.is_in(text)
    assert NUMBERS.is_in(as_bytes)
    assert NUMBERS.are_in(pa.array([b"", as_bytes, None])).tolist() == [False, True, False]


@pytest.mark.parametrize("text", ANOTHER.values(), ids=ANOTHER)
def test_another_number_is_not_taken_for_it(text: str) -> None:
    assert not NUMBERS.is_in(text)
    assert not NUMBERS.is_in(text.encode())
    assert not NUMBERS.are_in(pa.array([text])).any()


@pytest.mark.parametrize(
    "given",
    [PERSON, f"+86 {PERSON}", f"0086{PERSON}", f"86{PERSON}", "138-1234-5678", f" {PERSON}\n"],
)
def test_all_spellings_that_are_given_mean_one_number(given: str) -> None:
    assert PhoneNumber(given) == PERSON


@pytest.mark.parametrize("given", ["+65 8123 4567", "006581234567", "6581234567"])
def test_a_number_elsewhere_has_its_country_code(given: str) -> None:
    assert PhoneNumber(given) == "6581234567"
    found = Numbers([given])
    assert found.is_in("+6581234567")
    assert found.is_in("to 006581234567")
    assert not found.is_in("86581234567")


@pytest.mark.parametrize(
    "given", ["", "-", "12345", "1" * 18, "13812x45678", "１３８１２３４５６７８"]
)
def test_what_is_no_number_is_refused_and_not_repeated(given: str) -> None:
    with pytest.raises(NotANumberError) as refused:
        PhoneNumber(given)
    assert not given or given not in str(refused.value)


def test_numbers_are_shown_masked() -> None:
    assert repr(NUMBERS) == "Numbers(138******78)"
    assert repr(PhoneNumber(PERSON)) == "138******78"
    assert NUMBERS.masked == ["138******78"]


def test_maps_and_dictionaries_are_looked_into() -> None:
    tags = pa.array(
        [[("a", "1")], [], None, [("a", "1"), (PERSON, "b")], [("c", f"x {PERSON}")]],
        pa.map_(pa.string(), pa.string()),
    )
    assert NUMBERS.are_in(tags).tolist() == [False, False, False, True, True]
    assert NUMBERS.are_in(tags[3:]).tolist() == [True, True]
    assert NUMBERS.are_in(tags[:3]).tolist() == [False, False, False]
    codes = pa.array(["x", PERSON, None, "x"]).dictionary_encode()
    assert NUMBERS.are_in(codes).tolist() == [False, True, False, False]
    chunks = pa.chunked_array([["x"], [PERSON]])
    assert NUMBERS.are_in(chunks).tolist() == [False, True]
    assert not NUMBERS.are_in(pa.array([13812345678])).any(), "numbers are no texts"


def test_many_numbers_are_looked_for_at_once() -> None:
    people = [f"139{number:08d}" for number in range(50)]
    found = Numbers(people).are_in(pa.array([*people, PERSON]))
    assert found.tolist() == [True] * 50 + [False]


_PIECES = st.sampled_from(
    [*"0123456789", *PERSON, " ", "-", "\0", "１", r"\u003", r"\u0031", "86", "+", "x", PERSON]
)


@given(st.lists(_PIECES, max_size=30).map("".join))
def test_what_may_be_in_leaves_out_nothing_that_is_in(text: str) -> None:
    if NUMBERS.is_in(text):
        assert NUMBERS.may_be_in(pa.array([text])).all()


@given(
    st.lists(_PIECES, max_size=20).map("".join).filter(lambda text: not text or text[-1] in " -x+")
)
def test_text_around_a_number_does_not_hide_it(text: str) -> None:
    assert NUMBERS.is_in(f"{text}|{PERSON}|{text}")
