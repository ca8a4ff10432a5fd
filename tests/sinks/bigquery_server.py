"""What BigQuery's API does with the requests that the sink makes: tables, and rows by their insert ids."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from pipeline.sinks.bigquery import bigquery_schema
from pipeline.sinks.rows import STREAMED

_TABLES: Final = "/bigquery/v2/projects/p/datasets/d/tables"
# Limits of a request.
_MOST_ROWS: Final = 50_000
_MOST_BYTES: Final = 10_000_000
# Types have other names in answers than in SQL, whatever was asked for.
_ANSWERED: Final = {"BOOL": "BOOLEAN", "INT64": "INTEGER"}


class BigQueryServer:
    """A dataset ``p.d``; it keeps the first row of each insert id.

    Attributes:
        rows: of each table, insert id -> row as JSON.
        schemas: of each table, its columns.
        forbidden: tables that take no rows.
        unavailable: so many requests more are answered with 503.
        unknown: so many inserts more do not find their table, as if it had just been made.
        lost_answers: so many tables more are made, but the answer is 503.
        passing_faults: so many inserts more fail row by row, for a reason that passes.
        complaint: what every insert is refused with, if it is.
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, dict[str, Any]]] = {}
        self.schemas: dict[str, list[dict[str, Any]]] = {}
        self.forbidden: set[str] = set()
        self.unavailable = 0
        self.unknown = 0
        self.lost_answers = 0
        self.passing_faults = 0
        self.complaint = ""
        self.requests: list[int] = []
        self._lock = threading.Lock()

    def make_tables(self) -> None:
        for name, table in STREAMED.items():
            self.schemas.setdefault(name, bigquery_schema(table))

    def answer(self, method: str, path: str, body: Any) -> tuple[int, dict[str, Any]]:
        with self._lock:
            if self.unavailable:
                self.unavailable -= 1
                return _error(503, "backendError")
            if method == "POST" and path == _TABLES:
                return self._create(body["tableReference"]["tableId"], body["schema"]["fields"])
            name, _, action = path.removeprefix(f"{_TABLES}/").partition("/")
            if name not in self.schemas:
                return _error(404, "notFound")
            if action == "insertAll":
                return self._refusal(name, body["rows"]) or self._insert(name, body["rows"])
            return 200, self._table(name)

    def _create(self, name: str, columns: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        if name in self.schemas:
            return _error(409, "duplicate")
        self.schemas[name] = columns
        if self.lost_answers:
            self.lost_answers -= 1
            return _error(503, "backendError")
        return 200, self._table(name)

    def _table(self, name: str) -> dict[str, Any]:
        reference = {"projectId": "p", "datasetId": "d", "tableId": name}
        columns = [
            {**column, "type": _ANSWERED.get(column["type"], column["type"])}
            for column in self.schemas[name]
        ]
        return {"tableReference": reference, "schema": {"fields": columns}}

    def _refusal(self, name: str, rows: list[dict[str, Any]]) -> tuple[int, dict[str, Any]] | None:
        """Refuse a whole request, if it is to be."""
        if self.unknown:
            self.unknown -= 1
            return _error(404, "notFound")
        if name in self.forbidden:
            return _error(403, "accessDenied")
        if self.complaint:
            return _error(400, self.complaint)
        if len(rows) > _MOST_ROWS or len(json.dumps(rows)) > _MOST_BYTES:
            return _error(413, "invalid")
        return None

    def _insert(self, name: str, rows: list[dict[str, Any]]) -> tuple[int, dict[str, Any]]:
        self.requests.append(len(rows))
        if self.passing_faults:
            self.passing_faults -= 1
            return 200, {"insertErrors": [_row_error(0, "timeout", "")]}
        columns = {column["name"]: column for column in self.schemas[name]}
        unknown = [sorted(row["json"].keys() - columns.keys()) for row in rows]
        if any(unknown):  # then none of the request is inserted
            return 200, {
                "insertErrors": [
                    _row_error(index, "invalid" if fields else "stopped", *fields or ("",))
                    for index, fields in enumerate(unknown)
                ]
            }
        for row in rows:
            self.rows.setdefault(name, {}).setdefault(row["insertId"], row["json"])
        return 200, {}


def _row_error(index: int, reason: str, *fields: str) -> dict[str, Any]:
    errors = [
        {
            "reason": reason,
            "location": field,
            "debugInfo": "",
            "message": f"no such field: {field} (13800000000)",
        }
        for field in fields
    ]
    return {"index": index, "errors": errors}


def _error(code: int, reason: str) -> tuple[int, dict[str, Any]]:
    errors = [{"reason": reason, "message": reason}]
    return code, {"error": {"code": code, "message": reason, "errors": errors}}


@contextmanager
def serve() -> Iterator[tuple[BigQueryServer, str]]:
    """Serve an empty dataset; give it, and its URL."""
    state = BigQueryServer()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None: ...  # noqa: A002

        def do_GET(self) -> None:
            self._answer(None)

        def do_POST(self) -> None:
            length = int(self.headers["Content-Length"])
            self._answer(json.loads(self.rfile.read(length)))

        def _answer(self, body: Any) -> None:
            path = self.path.partition("?")[0]
            code, document = state.answer(self.command, path, body)
            data = json.dumps(document).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield state, f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
