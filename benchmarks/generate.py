"""Write the input of the bounded benchmark: an archive of delivery reports and its send log.

    python -m benchmarks.generate --rows 1000000 --workdir benchmark-input

The archive is laid out and encoded as the pipeline's own archive is; the send log is written as
Avro and as Parquet, and the raw messages once more as Parquet: the best case of the competitors.
The same rows and seed give the same bytes, so a finished input is used again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import resources
from pathlib import Path
from typing import Any, Final

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import traffic

# Part of the cache key: raise it when the same rows and seed give other bytes.
_VERSION: Final = 4
_MESSAGES_PER_FILE: Final = 125_000  # 8 files a million
_SYNC_INTERVAL_BYTES: Final = 256 * 1024  # as transforms/archive.py writes
_TIMESTAMP: Final = pa.timestamp("ms", tz="UTC")


@dataclass(frozen=True)
class Inputs:
    """Where one generated input lies, and what a correct job makes of it."""

    root: Path

    @property
    def archive(self) -> Path:
        """Root of the archive tree (Avro)."""
        return self.root / "archive"

    @property
    def archive_files(self) -> str:
        """Glob of the archive's Avro files."""
        return str(self.archive / "*" / "*" / "*.avro")

    @property
    def messages_parquet(self) -> str:
        """Glob of the same messages as Parquet."""
        return str(self.root / "messages" / "*.parquet")

    @property
    def send_log_avro(self) -> str:
        """Glob of the send log as Avro."""
        return str(self.root / "send_log_avro" / "*.avro")

    @property
    def send_log_parquet(self) -> str:
        """Glob of the send log as Parquet."""
        return str(self.root / "send_log_parquet" / "*.parquet")

    @property
    def expected(self) -> dict[str, int]:
        """Rows by table, by match and by failure reason, as drawn."""
        manifest: dict[str, int] = json.loads((self.root / "expected.json").read_text("utf-8"))
        return manifest


def generate(rows: int, seed: int, workdir: Path) -> Inputs:
    """Write the input for ``rows`` messages, or find it in ``workdir`` from an earlier run."""
    root = workdir / f"input-v{_VERSION}-rows{rows}-seed{seed}"
    if root.exists():
        return Inputs(root)
    unfinished = root.with_suffix(".unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    inputs = Inputs(unfinished)
    drawn = traffic.draw(rows, seed)
    for directory in ("messages", "send_log_avro", "send_log_parquet"):
        (unfinished / directory).mkdir(parents=True)
    rng = np.random.default_rng([seed, 1])
    for number, part in enumerate(_parts(rows)):
        _write_messages(inputs, drawn, part, number, rng)
        _write_send_log(inputs, drawn, part, number)
    (unfinished / "expected.json").write_text(json.dumps(drawn.expected, indent=1), "utf-8")
    unfinished.rename(root)
    return Inputs(root)


def _parts(rows: int) -> Iterator[slice]:
    for start in range(0, rows, _MESSAGES_PER_FILE):
        yield slice(start, min(start + _MESSAGES_PER_FILE, rows))


def _schema(name: str) -> Any:
    text = resources.files("schemas").joinpath(f"avro/{name}.avsc").read_text("utf-8")
    return fastavro.parse_schema(json.loads(text))


def _write_messages(
    inputs: Inputs, drawn: traffic.Traffic, part: slice, number: int, rng: np.random.Generator
) -> None:
    bodies = traffic.bodies(drawn, part)
    enqueued = drawn.deliveries.enqueued_ms[part]
    count = len(bodies)
    digits = rng.bytes(16 * count).hex().upper()
    ids = [digits[start : start + 32] for start in range(0, len(digits), 32)]
    first, last = int(enqueued[0]), int(enqueued[-1])
    landed = datetime.fromtimestamp(last / 1000, timezone.utc).date()
    directory = inputs.archive / traffic.QUEUE_NAME / f"landed={landed}"
    directory.mkdir(parents=True, exist_ok=True)
    name = uuid.UUID(bytes=rng.bytes(16), version=4)
    records = (
        {
            "message_id": message_id,
            "queue_name": traffic.QUEUE_NAME,
            "message_type": "SmsReport",
            "enqueued_at": enqueued_at,
            "dequeue_count": 1,
            "body": body,
        }
        for message_id, enqueued_at, body in zip(ids, enqueued.tolist(), bodies, strict=True)
    )
    _write_avro(directory / f"{first}-{last}-{count}-{name.hex}.avro", "mns_message", records)
    messages = pa.table(
        {
            "message_id": pa.array(ids),
            "queue_name": pa.repeat(traffic.QUEUE_NAME, count),
            "message_type": pa.repeat("SmsReport", count),
            "enqueued_at": pa.array(enqueued).cast(_TIMESTAMP),
            "dequeue_count": pa.repeat(pa.scalar(1, pa.int32()), count),
            "body": pa.array(bodies, pa.binary()).cast(pa.string()),
        }
    )
    _write_parquet(inputs.root / "messages" / f"{number:04d}.parquet", messages)


def _write_send_log(inputs: Inputs, drawn: traffic.Traffic, part: slice, number: int) -> None:
    columns = traffic.send_log_columns(drawn, part)
    tag_sets = traffic.tag_sets()
    tags = pa.array(tag_sets, pa.map_(pa.string(), pa.string())).take(pa.array(columns["tags"]))
    entries = pa.table({**columns, "tags": tags, "requested_at": pa.array(columns["requested_at"])})
    parquet = entries.set_column(
        entries.schema.get_field_index("requested_at"),
        "requested_at",
        entries["requested_at"].cast(_TIMESTAMP),
    )
    _write_parquet(inputs.root / "send_log_parquet" / f"{number:04d}.parquet", parquet)
    names = entries.column_names
    values = [
        [dict(tag_sets[place]) for place in columns["tags"].tolist()]
        if name == "tags"
        else entries[name].to_pylist()
        for name in names
    ]
    records = (dict(zip(names, row, strict=True)) for row in zip(*values, strict=True))
    _write_avro(inputs.root / "send_log_avro" / f"{number:04d}.avro", "send_log_entry", records)


def _write_avro(path: Path, schema_name: str, records: Iterator[dict[str, Any]]) -> None:
    with path.open("wb") as file:
        fastavro.writer(
            file,
            _schema(schema_name),
            records,
            codec="zstandard",
            sync_interval=_SYNC_INTERVAL_BYTES,
            # Else the marker between blocks is random, and the bytes never the same twice.
            sync_marker=uuid.uuid5(uuid.NAMESPACE_URL, path.name).bytes,
        )


def _write_parquet(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd")


def main(argv: Sequence[str] | None = None) -> None:
    """Generate the input that the arguments describe and print where it is."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workdir", type=Path, required=True)
    arguments = parser.parse_args(argv)
    print(generate(arguments.rows, arguments.seed, arguments.workdir).root)


if __name__ == "__main__":
    main()
