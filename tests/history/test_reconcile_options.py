"""The flags of reconcile and audit."""

from datetime import date, timedelta

import pytest

from pipeline.errors import OperatorError
from pipeline.options_reconcile import audit_options, reconcile_options

LOG = "--send_log=sends"
DAYS = ("--from=2026-11-01", "--to=2026-11-02")


def test_the_defaults_of_reconcile() -> None:
    options = reconcile_options([LOG])
    assert options.dysmsapi_endpoint == "https://dysmsapi.aliyuncs.com"
    assert options.after == timedelta(hours=1)
    assert options.again_after == timedelta(days=1)
    assert (options.questions_per_sec, options.workers) == (50, 1)
    assert (options.first, options.last, options.every) == (None, None, None)
    assert not options.dry_run


def test_every_other_flag_is_beams() -> None:
    options = reconcile_options([LOG, "--direct_num_workers=2", "--workers=2"])
    assert options.job.beam_args == ["--runner=FnApiRunner", "--direct_num_workers=2"]
    assert options.workers == 2


def test_following_has_a_rhythm() -> None:
    assert reconcile_options([LOG, "--follow", "--every_secs=60"]).every == timedelta(minutes=1)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "--send_log is missing: only the send log knows"),
        ([LOG, "--follow", "--from=2026-11-01"], "--follow asks about all sends: leave out"),
        ([LOG, "--from=2026-11-02", "--to=2026-11-01"], "--to is before --from: swap them."),
        ([LOG, "--from=yesterday"], "--from must be a day, as 2026-11-01 is."),
        ([LOG, "--qps=0"], "--qps must be more than 0, and 5000 at most."),
        ([LOG, "--qps=5001"], "--qps must be more than 0, and 5000 at most."),
        ([LOG, "--qps=nan"], "--qps must be more than 0, and 5000 at most."),
        ([LOG, "--workers=0"], "--workers must be 1-256."),
        ([LOG, "--follow", "--every_secs=0"], "--every_secs must be a number more than 0."),
        ([LOG, "--after_secs=-1"], "--after_secs must be 0-2592000"),
        ([LOG, "--again_after_secs=nan"], "--again_after_secs must be 0-2592000"),
        ([LOG, "--dysmsapi_endpoint=dysmsapi.aliyuncs.com"], "--dysmsapi_endpoint must be http"),
        ([LOG, "--dysmsapi_endpoint=http://h:port"], "--dysmsapi_endpoint must be http"),
        ([LOG, "--patience=1"], "There is no flag --patience"),
    ],
)
def test_a_wrong_flag_of_reconcile_is_a_sentence(flags: list[str], sentence: str) -> None:
    with pytest.raises(OperatorError) as refused:
        reconcile_options(flags)
    assert str(refused.value).startswith(sentence)


def test_the_flags_of_audit() -> None:
    options = audit_options([*DAYS, "--sign_name=Example", "--tolerance=0.01", "--json"])
    assert (options.first, options.last) == (date(2026, 11, 1), date(2026, 11, 2))
    assert (options.sign_name, options.tolerance, options.json) == ("Example", 0.01, True)
    assert audit_options(DAYS).tolerance == 0.001


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "the following arguments are required: --from, --to"),
        (["--from=", "--to=2026-11-01"], "--from and --to must be days"),
        ([*DAYS, "--tolerance=2"], "--tolerance must be a share from 0 to 1"),
        ([*DAYS, "--template_type=1"], "--template_type and --template_code go together"),
        ([*DAYS, "--template_code=SMS_1"], "--template_type and --template_code go together"),
        ([*DAYS, "--runner=FlinkRunner"], "unrecognized arguments: --runner=FlinkRunner"),
    ],
)
def test_a_wrong_flag_of_audit_is_a_sentence(flags: list[str], sentence: str) -> None:
    with pytest.raises(OperatorError) as refused:
        audit_options(flags)
    assert str(refused.value).startswith(sentence)
