"""The fast check and fastavro's strict writer take and refuse the same records."""

from datetime import date, timezone
from decimal import Decimal
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.contracts import Contract, ContractError, contract, contract_names
from tests.fuzz.records import avro_kind, fastavro_takes

ANY_TEXT = st.text(alphabet=st.characters(), max_size=5)  # lone surrogates included
TIMES = st.datetimes()

FITTING: dict[str, st.SearchStrategy[Any]] = {
    "string": st.text(max_size=5),
    "boolean": st.booleans(),
    "bytes": st.binary(max_size=5) | st.binary(max_size=3).map(bytearray),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "timestamp-millis": TIMES.map(lambda time: time.replace(tzinfo=timezone.utc)),
    "map": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
}

# Values that some reader somewhere takes for something that they are not.
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([2**31, -(2**31) - 1, 2**63, -(2**63) - 1, 0, 1]),
    st.floats(),
    ANY_TEXT,
    st.binary(max_size=3),
    TIMES,
    st.dictionaries(ANY_TEXT | st.integers(), ANY_TEXT | st.integers(), max_size=2),
    st.sampled_from([date(2026, 11, 1), Decimal(1), (), ("string", "x"), [], ["x"], "decode"]),
    st.sampled_from(["1", "true", "2026-11-01T00:00:00Z", "bm90IGJ5dGVz"]),
)


def fitting(avro: Any) -> st.SearchStrategy[Any]:
    kind = avro_kind(avro)
    value = st.sampled_from(avro["symbols"]) if kind == "enum" else FITTING[kind]
    return st.none() | value if isinstance(avro, list) else value


@st.composite
def records(draw: st.DrawFn) -> tuple[Contract, dict[str, Any]]:
    """Draw a record of some contract, with none to two things wrong with it."""
    compiled = contract(draw(st.sampled_from(contract_names())))
    fields = {field["name"]: field for field in compiled.schema["fields"]}
    record = {name: draw(fitting(field["type"])) for name, field in fields.items()}
    for name in draw(st.lists(st.sampled_from(sorted(fields)), max_size=2, unique=True)):
        if draw(st.booleans()):
            del record[name]
        else:
            record[name] = draw(ODD)
    if draw(st.integers(0, 9)) == 0:
        record["unheard_of"] = draw(ODD)
    return compiled, record


@given(records())
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_the_fast_check_takes_exactly_what_fastavro_takes(
    drawn: tuple[Contract, dict[str, Any]],
) -> None:
    compiled, record = drawn
    try:
        compiled.require(record)
        taken = True
    except ContractError:
        taken = False
    assert taken is fastavro_takes(compiled, record)
