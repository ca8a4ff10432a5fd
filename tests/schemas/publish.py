"""Published versions of the contracts: ``schemas/published/<release>/<contract>.avsc``.

What was written with them must stay readable, so the files of a release never change. Beside them stands
``manifest.json``: of each contract the fingerprint that its rows carry, and the SHA-256 of the file.

``python -m tests.schemas.publish 0.2.0`` publishes ``schemas/avro`` as release 0.2.0, as often as it changes
until 0.2.0 is out; the first change after that is the next release's.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from schemas.contracts import compile_contract

SCHEMAS: Final = Path(__file__).parents[2] / "schemas"
_MANIFEST: Final = "manifest.json"

Source = dict[str, Any]


def releases(schemas: Path = SCHEMAS) -> list[Path]:
    """The directory of every release, the oldest first."""
    return sorted((schemas / "published").iterdir(), key=_number)


def read_sources(directory: Path) -> dict[str, Source]:
    """The schemas in a directory, by contract."""
    return {file.stem: json.loads(file.read_bytes()) for file in sorted(directory.glob("*.avsc"))}


def make_manifest(directory: Path) -> dict[str, dict[str, str]]:
    """What there is to say of the schemas in a directory."""
    return {
        name: {
            "fingerprint": compile_contract(name, source).fingerprint,
            "sha256": hashlib.sha256((directory / f"{name}.avsc").read_bytes()).hexdigest(),
        }
        for name, source in read_sources(directory).items()
    }


def read_manifest(release: Path) -> dict[str, dict[str, str]]:
    """What was said of the schemas of a release when it was published."""
    entries: dict[str, dict[str, str]] = json.loads((release / _MANIFEST).read_bytes())
    return entries


def unpublished_contracts(schemas: Path = SCHEMAS) -> list[str]:
    """The contracts that are not those of the newest release."""
    present, newest = make_manifest(schemas / "avro"), make_manifest(releases(schemas)[-1])
    names = sorted(present.keys() | newest.keys())
    return [name for name in names if present.get(name) != newest.get(name)]


def publish(number: str, schemas: Path = SCHEMAS) -> None:
    """Make the present schemas those of a release.

    Raises:
        ValueError: there is a later release.
    """
    release = schemas / "published" / number
    if any(_number(known) > _number(release) for known in releases(schemas)):
        raise ValueError(f"{number} is not the newest release: its schemas stay as they are.")
    shutil.rmtree(release, ignore_errors=True)
    shutil.copytree(schemas / "avro", release)
    (release / _MANIFEST).write_text(json.dumps(make_manifest(release), indent=2) + "\n")


def breaking_changes(old: Source, new: Source) -> Iterator[str]:
    """Tell why one version of a schema cannot read, or would misread, what another has written."""
    if (old["namespace"], old["name"]) != (new["namespace"], new["name"]):
        yield "the record has another name"
    old_fields, new_fields = ({field["name"]: field for field in of["fields"]} for of in (old, new))
    for name, field in old_fields.items():
        if name not in new_fields:
            yield f"{name} is gone"
            continue
        present = new_fields[name]
        if _type(field["type"]) != _type(present["type"]):
            yield f"{name} has another type"
        if gone := _symbols(field["type"]) - _symbols(present["type"]):
            yield f"{name} lacks {', '.join(sorted(gone))}"
        if _default(field) and _default(field) != _default(present):
            yield f"{name} has another default"
    for name in new_fields.keys() - old_fields.keys():
        if not _default(new_fields[name]):
            yield f"{name} is new and has no default"


def _default(field: Source) -> list[Any]:
    """A field's default; none if it has none, not even null."""
    return [field["default"]] if "default" in field else []


def _type(avro: Any) -> Any:  # noqa: ANN401 (JSON)
    """A type without what may change."""
    if isinstance(avro, list):
        return [_type(branch) for branch in avro]
    if isinstance(avro, dict):
        return {key: value for key, value in avro.items() if key not in {"doc", "symbols"}}
    return avro


def _symbols(avro: Any) -> set[str]:  # noqa: ANN401
    if isinstance(avro, list):
        return set().union(*map(_symbols, avro))
    return set(avro.get("symbols", ())) if isinstance(avro, dict) else set()


def _number(release: Path) -> list[int]:
    return [int(part) for part in release.name.split(".")]


if __name__ == "__main__":
    publish(sys.argv[1])
