"""What any released version wrote, this one reads."""

import copy
import io
import shutil
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest

from schemas.contracts import Contract, compile_contract, contract, contract_names
from tests.schemas.publish import (
    SCHEMAS,
    Source,
    breaking_changes,
    make_manifest,
    publish,
    read_manifest,
    read_sources,
    releases,
    unpublished_contracts,
)

PRESENT = read_sources(SCHEMAS / "avro")
PUBLISHED = [
    pytest.param(name, source, id=f"{release.name}-{name}")
    for release in releases()
    for name, source in read_sources(release).items()
]

# The ends of what a type can hold.
EXTREMES: Mapping[str, Sequence[Any]] = {
    "boolean": (False, True),
    "int": (-(2**31), 2**31 - 1),
    "long": (-(2**63), 2**63 - 1),
    "string": ("", "短信\0👍"),
    "bytes": (b"", bytes(range(256))),
    "timestamp-millis": (
        datetime(1, 1, 1, tzinfo=timezone.utc),
        datetime(9999, 12, 31, 23, 59, 59, 999_000, timezone.utc),
    ),
    "map": ({}, {"": "", "名": "值"}),
}


@pytest.mark.parametrize("release", releases(), ids=lambda release: release.name)
def test_a_published_schema_never_changes(release: Path) -> None:
    assert make_manifest(release) == read_manifest(release), (
        f"schemas/published/{release.name} is not what was published: put it back. What is to change changes "
        "in schemas/avro, and is published with the next release."
    )


def test_the_present_schemas_are_published() -> None:
    newest = releases()[-1].name
    assert unpublished_contracts() == [], (
        f"schemas/avro is not what {newest} has published. Run `python -m tests.schemas.publish {newest}`; "
        f"or, if {newest} is out, publish it as the next release."
    )


@pytest.mark.parametrize(("name", "source"), PUBLISHED)
def test_no_published_version_is_broken(name: str, source: Source) -> None:
    assert name in PRESENT, "its rows are in archives and tables"
    assert list(breaking_changes(source, PRESENT[name])) == []


@pytest.mark.parametrize(("name", "source"), PUBLISHED)
def test_rows_of_a_published_version_read_as_avro_resolves_them(name: str, source: Source) -> None:
    version = compile_contract(name, source)
    assert completed(version) == resolved(version)


@pytest.mark.parametrize("name", contract_names())
def test_rows_from_before_any_field_was_added_read_as_avro_resolves_them(name: str) -> None:
    fields = PRESENT[name]["fields"]
    for added in fields:
        if "default" in added:
            without = [field for field in fields if field is not added]
            version = compile_contract(name, {**PRESENT[name], "fields": without})
            assert completed(version) == resolved(version), added["name"]


def completed(version: Contract) -> list[dict[str, Any]]:
    """Rows of a version as the tables are read."""
    rows = pa.Table.from_batches([version.batch(extreme_rows(version))])
    return [
        # Arrow's maps are lists of pairs.
        {name: dict(value) if isinstance(value, list) else value for name, value in row.items()}
        for row in contract(version.name).complete(rows).to_pylist()
    ]


def resolved(version: Contract) -> list[dict[str, Any]]:
    """The same rows as Avro's own rules bring them to the present schema."""
    container = io.BytesIO()
    fastavro.writer(container, version.schema, extreme_rows(version))
    container.seek(0)
    rows: list[Any] = list(fastavro.reader(container, contract(version.name).schema))
    return rows


def extreme_rows(version: Contract) -> list[dict[str, Any]]:
    """Rows with every null, extreme and symbol that the version knows."""
    values = {field["name"]: values_of(field["type"]) for field in version.schema["fields"]}
    rows = [
        {name: of_field[row % len(of_field)] for name, of_field in values.items()}
        for row in range(max(map(len, values.values())))
    ]
    for row in rows:
        version.require(row)
    return rows


def values_of(avro: Any) -> Sequence[Any]:
    if isinstance(avro, list):
        return [None, *values_of(avro[1])]
    kind = avro if isinstance(avro, str) else avro.get("logicalType") or avro["type"]
    values: Sequence[Any] = avro["symbols"] if kind == "enum" else EXTREMES[kind]
    return values


OLD: Source = {
    "name": "Thing",
    "namespace": "sms_receipts",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "size", "type": ["null", "int"], "default": None},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["a", "b"]}, "default": "a"},
    ],
}  # fmt: skip
NEW_FIELD = {"name": "new", "type": ["null", "string"]}


def changed(change: Callable[[Source], object]) -> list[str]:
    """What breaks when the schema is changed."""
    new = copy.deepcopy(OLD)
    change(new)
    return list(breaking_changes(OLD, new))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda new: new.update(name="Other"), "the record has another name"),
        (lambda new: new["fields"].pop(0), "id is gone"),
        (lambda new: new["fields"][0].update(type=["null", "string"]), "id has another type"),
        (lambda new: new["fields"][1].update(type=["null", "long"]), "size has another type"),
        (lambda new: new["fields"][1].pop("default"), "size has another default"),
        (lambda new: new["fields"][2].update(type="long"), "at has another type"),
        (lambda new: new["fields"][3]["type"]["symbols"].pop(), "kind lacks b"),
        (lambda new: new["fields"][3].update(default="b"), "kind has another default"),
        (lambda new: new["fields"].append(NEW_FIELD), "new is new and has no default"),
    ],
)
def test_a_change_that_cannot_read_what_was_written_is_found(
    change: Callable[[Source], object], said: str
) -> None:
    assert changed(change) == [said]


@pytest.mark.parametrize(
    "change",
    [
        lambda new: new["fields"].append({**NEW_FIELD, "default": None}),
        lambda new: new["fields"][3]["type"]["symbols"].insert(0, "c"),
        lambda new: new["fields"][0].update(doc="Said better."),
    ],
)
def test_a_field_with_a_default_a_symbol_and_a_better_word_break_nothing(
    change: Callable[[Source], object],
) -> None:
    assert changed(change) == []


def test_the_newest_release_is_published_again_and_older_ones_never(tmp_path: Path) -> None:
    shutil.copytree(SCHEMAS / "avro", tmp_path / "avro")
    (tmp_path / "published").mkdir()
    publish("0.9.0", tmp_path)
    publish("0.10.0", tmp_path)
    (tmp_path / "avro" / "mns_message.avsc").unlink()
    assert unpublished_contracts(tmp_path) == ["mns_message"]

    publish("0.10.0", tmp_path)

    assert unpublished_contracts(tmp_path) == []
    assert read_manifest(tmp_path / "published" / "0.10.0") == make_manifest(tmp_path / "avro")
    with pytest.raises(ValueError, match=r"^0\.9\.0 is not the newest release"):
        publish("0.9.0", tmp_path)


def test_an_edited_file_is_no_published_one_any_more(tmp_path: Path) -> None:
    release = tmp_path / "0.1.0"
    shutil.copytree(releases()[0], release)
    edited = release / "mns_message.avsc"
    # A fingerprint does not see the words, but they say what a row means.
    edited.write_text(edited.read_text().replace('"doc": "', '"doc": "Not '))
    assert make_manifest(release) != read_manifest(release)
