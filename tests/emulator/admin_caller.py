"""A client of the emulator's own endpoints (emulator/admin.py)."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from typing import Any

from tests.emulator_process import EmulatorProcess

Json = dict[str, Any]


class Admin:
    """Governs one emulator process; paths are those below ``/emulator``."""

    def __init__(self, emulator: EmulatorProcess) -> None:
        self._port = emulator.port

    def call(self, method: str, path: str, document: object = None) -> tuple[int, Json]:
        body = None if document is None else json.dumps(document)
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)) as connection:
            connection.request(method, f"/emulator{path}", body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def get(self, path: str) -> Json:
        status, told = self.call("GET", path)
        assert status == 200
        return told

    def set_rules(self, *rules: Json) -> None:
        status, told = self.call("PUT", "/faults", {"rules": rules})
        assert (status, told["plan"]) == (200, {"rules": list(rules)})

    def end_rules(self) -> None:
        assert self.call("DELETE", "/faults") == (200, {"plan": None, "counts": []})

    def injected(self) -> list[int]:
        return [each["injected"] for each in self.get("/faults")["counts"]]

    def advance(self, secs: float) -> None:
        assert self.call("POST", "/clock", {"advance_secs": secs})[0] == 200

    def depths(self, queue: str) -> tuple[int, int, int]:
        states = self.get(f"/queues/{queue}")
        return len(states["active"]), len(states["inactive"]), len(states["delayed"])
