"""Inputs that libFuzzer makes: what reached a new branch is kept, and mutated again."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final, NoReturn

import atheris

from pipeline.mns import wire
from schemas import contracts
from tests.fuzz.targets import Target
from transforms import (
    avro_blocks,
    avro_datum,
    decode_body,
    decode_query,
    decode_sends,
    decode_shapes,
    decode_times,
    send_log,
    send_log_checks,
    send_log_columns,
    send_log_lines,
    validate,
)

_HANG_SECS: Final = 60
_MAX_INPUT_BYTES: Final = 4096
# Where branches are counted; what works on whole columns has none to speak of.
_GUIDING: Final = (
    avro_blocks, avro_datum, contracts, decode_body, decode_query, decode_sends, decode_shapes, decode_times,
    send_log, send_log_checks, send_log_columns, send_log_lines, validate, wire,
)  # fmt: skip


class GuidedRun:
    """Inputs by libFuzzer for one target.

    Each is glanced at by itself, so that libFuzzer sees where it leads, and all are held to everything in
    batches, which costs a fraction of holding each by itself.
    """

    def __init__(self, name: str, target: Target, inputs: int, corpus: Path) -> None:
        self._name = name
        self._target = target
        self._inputs = self._left = inputs
        self._corpus = corpus
        self._kept: list[tuple[bytes, Any]] = []
        self._counts: Counter[str] = Counter()

    def fuzz(self, seed: int) -> NoReturn:
        """Run; ends the process, with exit code 0 when nothing was found."""
        for module in _GUIDING:
            for function in _functions(module):
                atheris.instrument_func(function)
        self._corpus.mkdir(parents=True, exist_ok=True)
        options = [
            f"-runs={self._left}",
            f"-seed={seed}",
            f"-max_len={_MAX_INPUT_BYTES}",
            f"-timeout={_HANG_SECS}",
            f"-artifact_prefix={self._corpus}-",
            # Longer inputs from the start: a shape of the documents takes a hundred bytes.
            "-len_control=0",
            "-print_final_stats=1",
        ]
        atheris.Setup([sys.argv[0], *options, str(self._corpus)], self._take)
        atheris.Fuzz()
        raise AssertionError("libFuzzer has returned")

    def _take(self, data: bytes) -> None:
        one = self._target.read(data)
        self._kept.append((data, one))
        self._target.glance(one)
        self._left -= 1
        if len(self._kept) == self._target.batch or not self._left:
            self._check()
        if not self._left:  # libFuzzer does not return
            print(f"\n{self._name}: {self._inputs:,} inputs that libFuzzer chose; of these")
            for outcome, number in self._counts.most_common():
                print(f"  {outcome:<32}{number:>14,}")
            print("reached: no findings", flush=True)

    def _check(self) -> None:
        try:
            self._counts.update(self._target.check([one for _, one in self._kept]))
        except Exception:
            # libFuzzer keeps the last input, which need not be the one.
            for data, one in self._kept:
                if self._target.failing([one]):
                    path = Path(f"{self._corpus}-finding-{sha1(data).hexdigest()}")
                    path.write_bytes(data)
                    print(f"FOUND, kept as {path}: {one!r}", flush=True)
            raise
        self._kept.clear()


def _functions(module: ModuleType) -> Iterator[FunctionType]:
    """Yield the functions and methods that a module defines."""
    for holder in (module, *(kind for kind in vars(module).values() if isinstance(kind, type))):
        for function in vars(holder).values():
            if isinstance(function, FunctionType) and function.__module__ == module.__name__:
                yield function
