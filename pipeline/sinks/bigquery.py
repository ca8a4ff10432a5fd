"""BigQuery tables of rows, by its streaming API; needs ``pip install 'sms-receipts[bigquery]'``."""

import base64
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import apache_beam as beam
import pyarrow as pa
import pyarrow.compute as pc
from apache_beam.metrics.metric import Metrics
from apache_beam.pvalue import PCollection
from google.api_core.exceptions import GoogleAPICallError, NotFound, RetryError, ServiceUnavailable
from google.api_core.retry import Retry, if_exception_type
from google.auth.credentials import AnonymousCredentials
from google.auth.exceptions import GoogleAuthError
from typing_extensions import override

from pipeline.errors import OutputError
from pipeline.sinks.rows import STREAMED, rows_of
from schemas.contracts import contract
from transforms.row_ids import row_ids
from transforms.tables import Table

# A request may have 50,000 rows and 10 MB; 500 rows is what Google recommends.
_REQUEST_ROWS: Final = 500
_REQUEST_BYTES: Final = 5 * 1024 * 1024
# Rows of a bundle that wait for its end; beyond, they are inserted at once.
_WAITING_ROWS: Final = 20_000
_TIMEOUT_SECS: Final = 60.0
# A service that fails for so long fails the bundle.
_GIVE_UP_AFTER_SECS: Final = 120.0
# A table that was just made is known to inserts only after a while; the client does not wait for it.
_NOT_THERE_YET: Final = Retry(predicate=if_exception_type(NotFound), timeout=_GIVE_UP_AFTER_SECS)
# Of a row that could be valid a moment later; ``stopped`` is one that another row of its request held up.
_TRANSIENT_REASONS: Final = frozenset(
    {"backendError", "internalError", "rateLimitExceeded", "timeout"}
)
_STOPPED: Final = "stopped"
# What the API answers for the types of a column, where that is not the name in SQL.
_STANDARD: Final[Mapping[str, str]] = {"BOOLEAN": "BOOL", "INTEGER": "INT64", "STRUCT": "RECORD"}

_TYPES: Final[Mapping[pa.DataType, str]] = {
    pa.bool_(): "BOOL",
    pa.int32(): "INT64",
    pa.int64(): "INT64",
    pa.string(): "STRING",
    pa.binary(): "BYTES",
    pa.timestamp("ms", tz="UTC"): "TIMESTAMP",
}
# BigQuery has no maps; a Pub/Sub subscription that writes to BigQuery lays an Avro map out in this way too.
_MAP: Final = (
    {"name": "key", "type": "STRING", "mode": "REQUIRED"},
    {"name": "value", "type": "STRING", "mode": "REQUIRED"},
)

# Of a column's description.
_LONGEST_TEXT: Final = 1024

# Rows that BigQuery has taken, as attempts: a bundle that is tried again counts again.
_inserted_rows = Metrics.counter("bigquery", "inserted_rows")


@dataclass(frozen=True)
class Dataset:
    """A BigQuery dataset: ``<project>.<dataset>``."""

    name: str

    def __post_init__(self) -> None:
        parts = self.name.split(".")
        if len(parts) != 2 or not all(parts):  # noqa: PLR2004
            raise OutputError(
                f"--bigquery_sink must read PROJECT.DATASET: {self.name} is no dataset's name."
            )

    @property
    def project(self) -> str:
        """The project that it belongs to, and that pays."""
        return self.name.partition(".")[0]

    def table(self, table: Table) -> str:
        """Name the BigQuery table of one of ours."""
        return f"{self.name}.{table.name}"


class WriteToBigQuery(beam.PTransform[PCollection[tuple[str, bytes]], PCollection[None]]):
    """Insert each row into the table of its name, at least once; a bundle ends when BigQuery has its rows.

    A row's insert id is the same whenever the row comes again: BigQuery drops repeats within a minute or so,
    as best it can; readers tell later ones by the columns of the row's key (``schemas.row_keys``). Beam's own
    streaming inserts draw their ids at random.
    """

    def __init__(self, dataset: Dataset) -> None:
        super().__init__()
        self._dataset = dataset

    @override
    def expand(self, rows: PCollection[tuple[str, bytes]]) -> PCollection[None]:
        inserted: PCollection[None] = rows | "Insert" >> beam.ParDo(_InsertFn(self._dataset))
        return inserted


class _InsertFn(beam.DoFn):
    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset
        self._client: Any = None
        self._rows: dict[str, list[pa.Table]] = {}
        self._waiting = 0

    @override
    def setup(self) -> None:
        self._client = _client(self._dataset)

    @override
    def start_bundle(self) -> None:
        self._rows = {}
        self._waiting = 0

    @override
    def process(self, element: tuple[str, bytes]) -> None:
        name, packed = element
        rows = rows_of(STREAMED[name], packed)
        self._rows.setdefault(name, []).append(rows)
        self._waiting += rows.num_rows
        if self._waiting >= _WAITING_ROWS:
            self._insert_all()

    @override
    def finish_bundle(self) -> None:
        self._insert_all()

    def _insert_all(self) -> None:
        for name, parts in self._rows.items():
            rows = pa.concat_tables(parts)
            for ids, records in _requests(name, rows):
                _insert(self._client, self._dataset.table(STREAMED[name]), ids, records)
            _inserted_rows.inc(rows.num_rows)
        self.start_bundle()

    @override
    def teardown(self) -> None:
        if self._client is not None:
            self._client.close()


def require_tables(dataset: Dataset, *, create: bool = False) -> None:
    """Make sure that every table is there, and takes the rows of its contract.

    Args:
        dataset: where they are.
        create: make those that are missing, partitioned by day and clustered by the column that single rows
            are looked up by.

    Raises:
        OutputError: a table is missing or has columns that do not fit, or BigQuery does not say.
    """
    client = _client(dataset)
    try:
        for table in STREAMED.values():
            try:
                _require(client, dataset.table(table), table, create)
            except (GoogleAPICallError, RetryError, OSError, GoogleAuthError) as error:
                raise OutputError(
                    f"The BigQuery table {dataset.table(table)} cannot be looked at "
                    f"({type(error).__name__}): check the dataset's name, and that this account may see it."
                ) from error
    finally:
        client.close()


def _require(client: Any, name: str, table: Table, create: bool) -> None:
    from google.cloud import bigquery  # noqa: PLC0415 - an extra

    retry = _retry()
    wanted = bigquery.Table(
        name, [bigquery.SchemaField.from_api_repr(field) for field in bigquery_schema(table)]
    )
    try:
        found = client.get_table(name, timeout=_TIMEOUT_SECS, retry=retry)
    except NotFound:
        if not create:
            raise OutputError(
                f"The BigQuery table {name} does not exist: start once with --create_tables, or make it with "
                f"the columns of {table.contract}.avsc."
            ) from None
        wanted.time_partitioning = bigquery.TimePartitioning(field=table.day_column)
        wanted.clustering_fields = [table.sort_column]
        # It may exist by now: of another start, or of ours, if the answer to a first attempt was lost.
        found = client.create_table(wanted, exists_ok=True, timeout=_TIMEOUT_SECS, retry=retry)
    changes = list(_changes(wanted.schema, found.schema))
    if changes:
        raise OutputError(
            f"The BigQuery table {name} does not take rows of {table.contract}.avsc: {', '.join(changes)}, "
            "or move it away and start once with --create_tables."
        )


def _changes(wanted: Iterable[Any], found: Iterable[Any]) -> Iterator[str]:
    """Say what has to change until columns take what the wanted ones do (``SchemaField``)."""
    others = {field.name: field for field in found}
    for field in wanted:
        other = others.pop(field.name, None)
        kind = f"{'REPEATED' if field.mode == 'REPEATED' else 'NULLABLE'} {field.field_type}"
        if other is None:
            yield f"add {field.name} ({kind})"
        elif not _takes(other, field):
            yield f"make {field.name} {kind}"
        else:
            yield from (
                f"{change} in {field.name}" for change in _changes(field.fields, other.fields)
            )
    for other in others.values():
        if other.mode == "REQUIRED" and other.default_value_expression is None:
            yield f"make {other.name} NULLABLE"


def _takes(found: Any, wanted: Any) -> bool:
    """Whether a column takes the values of another; of records only that they are some."""
    if _STANDARD.get(found.field_type, found.field_type) != wanted.field_type:
        return False
    return found.mode == wanted.mode or (found.mode, wanted.mode) == ("NULLABLE", "REQUIRED")


def bigquery_schema(table: Table) -> list[dict[str, Any]]:
    """Lay out a table's columns as ``bq mk --schema`` takes them."""
    columns: list[dict[str, Any]] = []
    for field in table.schema:
        if pa.types.is_map(field.type):
            columns.append(
                {"name": field.name, "type": "RECORD", "mode": "REPEATED", "fields": list(_MAP)}
            )
        else:
            mode = "NULLABLE" if field.nullable else "REQUIRED"
            columns.append({"name": field.name, "type": _TYPES[field.type], "mode": mode})
    docs = {each["name"]: each["doc"] for each in contract(table.contract).schema["fields"]}
    return [{**column, "description": docs[column["name"]][:_LONGEST_TEXT]} for column in columns]


def _client(dataset: Dataset) -> Any:
    try:
        from google.cloud import bigquery  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise OutputError(
            "--bigquery_sink needs google-cloud-bigquery: pip install 'sms-receipts[bigquery]', on the "
            "workers too."
        ) from error
    if "BIGQUERY_EMULATOR_HOST" in os.environ:  # the client's own variable; it asks for no keys
        return bigquery.Client(dataset.project, credentials=AnonymousCredentials())
    return bigquery.Client(dataset.project)


def _retry() -> Any:
    from google.cloud.bigquery.retry import DEFAULT_RETRY  # noqa: PLC0415 - an extra

    return DEFAULT_RETRY.with_timeout(_GIVE_UP_AFTER_SECS)


def _insert(
    client: Any, table: str, ids: Sequence[str], records: Sequence[Mapping[str, Any]]
) -> None:
    """Insert rows; a service that cannot do it now is asked again, with the same ids.

    Raises:
        OutputError: BigQuery has not taken all of them.
    """

    def insert() -> None:
        errors = client.insert_rows_json(
            table, records, row_ids=ids, retry=None, timeout=_TIMEOUT_SECS
        )
        wrong = [error for row in errors for error in row["errors"] if error["reason"] != _STOPPED]
        if any(error["reason"] not in _TRANSIENT_REASONS for error in wrong):
            raise _refused(table, errors, wrong)
        if errors:
            raise ServiceUnavailable("rows failed for now")

    try:
        _NOT_THERE_YET(_retry()(insert))()
    except (GoogleAPICallError, RetryError, OSError, GoogleAuthError) as error:
        cause = error.cause if isinstance(error, RetryError) else error
        raise OutputError(
            f"The BigQuery table {table} does not take rows ({type(cause).__name__}): check that it exists "
            "and that this account may insert; the rows of the failed bundle come again."
        ) from None  # it may quote a row


def _refused(
    table: str, errors: Sequence[Mapping[str, Any]], wrong: Sequence[Mapping[str, Any]]
) -> OutputError:
    """Say which columns BigQuery found fault with; its message may quote a value, and stays out."""
    faults = sorted({f"{error['reason']} {error.get('location') or ''}".strip() for error in wrong})
    return OutputError(
        f"The BigQuery table {table} refused {len(errors)} row(s) ({', '.join(faults)}): bring its columns "
        "to this version's schema; the rows of the failed bundle come again."
    )


def _requests(name: str, rows: pa.Table) -> Iterator[tuple[list[str], list[dict[str, Any]]]]:
    """Cut rows into requests of a size that BigQuery takes: ids and records."""
    ids = row_ids(name, rows).to_pylist()
    records = _records(rows)
    start = size = 0
    for position, record in enumerate(records):
        more = len(json.dumps(record))
        if position > start and (position - start == _REQUEST_ROWS or size + more > _REQUEST_BYTES):
            yield ids[start:position], records[start:position]
            start, size = position, 0
        size += more
    yield ids[start:], records[start:]


def _records(rows: pa.Table) -> list[dict[str, Any]]:
    names = rows.schema.names
    return [
        dict(zip(names, row, strict=True)) for row in zip(*map(_values, rows.columns), strict=True)
    ]


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Spell a column's values as the API's JSON has them."""
    if pa.types.is_timestamp(column.type):
        plain = column.cast(pa.timestamp("ms"))
        return list(pc.strftime(plain, "%Y-%m-%dT%H:%M:%SZ").to_pylist())
    values: list[Any] = column.to_pylist()
    if pa.types.is_map(column.type):
        return [[{"key": key, "value": value} for key, value in pairs] for pairs in values]
    if pa.types.is_binary(column.type):
        return [None if value is None else base64.b64encode(value).decode() for value in values]
    return values
