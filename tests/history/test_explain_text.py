"""The command line of ``explain``, and how a number is masked."""

import pytest

from pipeline.errors import OperatorError
from pipeline.explain.text import mask
from pipeline.options_explain import explain_options
from transforms.moments import day_number


@pytest.mark.parametrize(
    ("phone_number", "masked"),
    [
        ("13800000000", "138****0000"),
        ("8613800000000", "861******0000"),
        ("6591234567", "65*****567"),
        ("10086", "1***6"),
        ("1", "*"),
        ("", ""),
    ],
)
def test_a_masked_number_is_known_to_who_knows_it(phone_number: str, masked: str) -> None:
    assert mask(phone_number) == masked


def test_both_spellings_show_personal_data() -> None:
    for flag in ("--show-personal-data", "--show_personal_data"):
        assert explain_options(["1^0", flag]).shows_personal_data
    assert not explain_options(["1^0"]).shows_personal_data


def test_days_and_patience_are_read() -> None:
    options = explain_options(["1^0", "--from=2026-11-01", "--to=2026-11-02"])
    first = day_number("2026-11-01")
    assert options.days == range(first, first + 2)
    assert explain_options(["1^0"]).days is None


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "BIZ_ID"),
        ([""], "BIZ_ID is empty"),
        (["1^0", "--join_patience_secs=-1"], "--join_patience_secs must be"),
        (["1^0", "--from=2026-11-02", "--to=2026-11-01"], "--to is before --from"),
        (["1^0", "13800001111"], r"too many arguments \(1\)"),
        (["1^0", "13800001111", "--phone=13800001111"], r"too many arguments \(2\)"),
    ],
)
def test_wrong_flags_are_refused_and_not_repeated(flags: list[str], sentence: str) -> None:
    with pytest.raises(OperatorError, match=sentence) as refused:
        explain_options(flags)
    assert "13800001111" not in str(refused.value)


def test_a_recipient_is_not_in_the_repr() -> None:
    assert "13800001111" not in repr(explain_options(["1^0", "--phone_number=13800001111"]))
