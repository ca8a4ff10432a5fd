"""The send log as the simulated application writes it: JSON lines, appended."""

from __future__ import annotations

from pathlib import Path

from emulator.clock import beijing_compact


class SendLogWriter:
    """Appends lines to a file, or to one file per Beijing day in a directory."""

    def __init__(self, path: str) -> None:
        """Write to ``path``: a directory when it is one, ends in '/' or has no suffix."""
        self._path = Path(path)
        self._by_day = path.endswith("/") or self._path.is_dir() or not self._path.suffix
        (self._path if self._by_day else self._path.parent).mkdir(parents=True, exist_ok=True)
        self._lines: dict[Path, list[bytes]] = {}
        self.held = 0

    def add(self, requested_at_ms: int, lines: list[bytes]) -> None:
        """Hold the lines of one send until :meth:`flush`."""
        path = self._path
        if self._by_day:
            day = beijing_compact(requested_at_ms)
            path = self._path / f"sends-{day[:4]}-{day[4:6]}-{day[6:8]}.jsonl"
        self._lines.setdefault(path, []).extend(lines)
        self.held += len(lines)

    def flush(self) -> None:
        """Append everything that is held; whole lines only."""
        for path, lines in self._lines.items():
            with path.open("ab") as log:
                log.write(b"\n".join(lines) + b"\n")
        self._lines.clear()
        self.held = 0
