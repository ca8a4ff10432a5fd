"""100,000 messages and all else that strangers write: every input ends in one place, and quietly.

``python -m benchmarks.fuzz`` runs the same properties over as many inputs as one has time for.
"""

import logging
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.inputs import PHONE, SECRETS, Message, draw_message
from tests.fuzz.properties import check_messages, discreet_logs, require_discretion
from tests.fuzz.targets import TARGETS, Target

SEED = 0
# Why a message can fail. The decoder leaves nothing for the contract to refuse.
REASONS = {
    "empty_body", "malformed_base64", "malformed_utf8", "malformed_json", "duplicate_key", "nested_too_deep",
    "lone_surrogate", "nul_character", "unknown_message_type", "unknown_shape", "missing_field",
    "empty_identifier", "wrong_type", "malformed_time", "malformed_number", "unknown_status",
}  # fmt: skip


def fuzz(name: str, inputs: int) -> Counter[str]:
    """Check inputs batch by batch; says how to see a failure again."""
    target, counts = TARGETS[name], Counter[str]()
    for number in range(inputs // target.batch):
        batch = target.draw_batch(SEED, number)
        try:
            counts.update(target.check(batch))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            shown = "\n".join(repr(one)[:2000] for one in target.failing(batch)[:3])
            pytest.fail(
                f"{error}\n{shown}\nSee it again: python -m benchmarks.fuzz --target {name} "
                f"--seed {SEED} --batch {number}"
            )
    return counts


@pytest.mark.integration
@pytest.mark.timeout(240)
def test_every_one_of_100_000_messages_ends_in_one_place() -> None:
    counts = fuzz("messages", 100_000)
    assert counts["messages"] == 100_000
    assert counts["decoded_messages"] > 25_000  # most of what is drawn is only nearly wrong
    assert {name for name in counts if "/" in name} == {f"failed/{reason}" for reason in REASONS}


@pytest.mark.integration
@pytest.mark.parametrize(
    ("name", "inputs", "outcomes"),
    [
        ("answers", 3_000, {"received", "changed", "delete errors", "error codes", "refusals"}),
        ("archive_files", 200, {"read", "lost"}),
        ("records", 10_000, {"taken", "refused"}),
        ("sends", 4_000, {"avro", "json", "malformed_avro", "unknown_schema", "nul_character"}),
        ("send_log", 20_000, {"entries", "refused", "blank lines"}),
        ("send_log_files", 200, {"sends", "failed_sends", "refused files"}),
    ],
)
def test_whatever_else_strangers_write_is_read_or_refused(
    name: str, inputs: int, outcomes: set[str]
) -> None:
    counts = fuzz(name, inputs)
    assert outcomes <= {outcome for outcome, number in counts.items() if number}


@given(st.lists(st.randoms(use_true_random=False).map(draw_message), min_size=1, max_size=6))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_messages_that_hypothesis_draws_end_in_one_place(messages: list[Message]) -> None:
    check_messages(messages)


@given(st.sampled_from([*TARGETS.values()]), st.binary(max_size=60))
@settings(max_examples=60, deadline=None)
def test_what_a_fuzzer_makes_of_bytes_is_read_or_refused(target: Target, data: bytes) -> None:
    target.check([target.read(data)])


@pytest.mark.parametrize(
    "text", [f"phone_number is {PHONE}", f"not {SECRETS[4][1:4]}", SECRETS[1][:6]]
)
def test_a_part_of_a_secret_gives_it_away(text: str) -> None:
    with pytest.raises(AssertionError, match="personal data"):
        require_discretion(["biz_id: expected a string", text])


def test_a_secret_in_the_cause_of_a_logged_error_gives_it_away() -> None:
    cause = ValueError(f"not a number: {PHONE}")
    with pytest.raises(AssertionError, match="personal data"), discreet_logs():
        logging.getLogger("transforms").debug("cannot be read", exc_info=cause)
