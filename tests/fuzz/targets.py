"""What there is to fuzz: how its inputs are drawn, how a fuzzer's bytes become one, and what must hold."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from tests.fuzz import (
    answers,
    archive_files,
    inputs,
    properties,
    records,
    send_log_files,
    send_logs,
    sends,
)


@dataclass(frozen=True)
class Target:
    """One reader of bytes that strangers write.

    Attributes:
        draw: Draws an input.
        read: Makes an input of a fuzzer's bytes.
        glance: Reads an input by itself, as cheaply as shows a fuzzer where it leads.
        check: Requires of inputs, read together, what must hold; returns counts of what became of them.
        batch: How many inputs are read together.
    """

    draw: Callable[[Random], Any]
    read: Callable[[bytes], Any]
    glance: Callable[[Any], object]
    check: Callable[[Sequence[Any]], Counter[str]]
    batch: int

    def draw_batch(self, seed: int, number: int) -> list[Any]:
        """Draw a batch, the same for the same seed and number."""
        random = Random(f"{seed}/{number}")  # noqa: S311 - nothing to keep secret
        return [self.draw(random) for _ in range(self.batch)]

    def failing(self, batch: Sequence[Any]) -> list[Any]:
        """Find the inputs of a batch that fail by themselves."""
        return [each for each in batch if not self._passes(each)]

    def _passes(self, one: Any) -> bool:
        try:
            self.check([one])
        except Exception:  # noqa: BLE001 - whatever it is, it is a finding
            return False
        return True


TARGETS: Final[Mapping[str, Target]] = {
    "messages": Target(
        draw=inputs.draw_message,
        read=inputs.message_from_bytes,
        glance=properties.glance_at_message,
        check=properties.check_messages,
        batch=500,
    ),
    "answers": Target(
        draw=answers.draw_answer,
        read=answers.answer_from_bytes,
        glance=lambda answer: answers.check_answers([answer]),
        check=answers.check_answers,
        batch=100,
    ),
    "archive_files": Target(
        draw=archive_files.draw_archive_damage,
        read=archive_files.archive_damage_from_bytes,
        glance=lambda file: archive_files.check_archive_damage([file]),
        check=archive_files.check_archive_damage,
        batch=20,
    ),
    "records": Target(
        draw=records.draw_record,
        read=records.record_from_bytes,
        glance=lambda record: records.check_records([record]),
        check=records.check_records,
        batch=200,
    ),
    "sends": Target(
        draw=sends.draw_body,
        read=sends.body_from_bytes,
        glance=lambda body: sends.check_bodies([body]),
        check=sends.check_bodies,
        batch=200,
    ),
    "send_log": Target(
        draw=send_logs.draw_line,
        read=send_logs.line_from_bytes,
        glance=lambda line: send_logs.check_lines_of_log([line]),
        check=send_logs.check_lines_of_log,
        batch=500,
    ),
    "send_log_files": Target(
        draw=send_log_files.draw_file,
        read=send_log_files.file_from_bytes,
        glance=lambda file: send_log_files.check_files([file]),
        check=send_log_files.check_files,
        batch=20,
    ),
}
