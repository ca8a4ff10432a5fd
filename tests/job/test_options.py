"""Flags: what they mean, and one sentence for each that is wrong."""

import os
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta, timezone

import pytest

from pipeline.__main__ import main
from pipeline.errors import OperatorError
from pipeline.mns.settings import MnsSettings
from pipeline.options import backfill_options, run_options
from transforms.breaker import FailureLimit
from transforms.moments import day_name

QUEUE = "Alicom-Queue-1000000000000001-SmsReport"
RUN = ("--until-empty", f"--mns_queues={QUEUE}")
BACKFILL = ("--from=2026-11-01", "--to=2026-11-07")


def test_the_defaults_are_those_of_the_settings() -> None:
    options = run_options(RUN)

    assert options.mns == MnsSettings(queues=(QUEUE,))
    assert options.job.patience == timedelta(days=3)
    assert options.job.send_log is None
    assert not options.follow
    assert options.failure_limit == FailureLimit()
    assert options.metrics_address is None
    assert os.path.isabs(options.job.archive)
    assert os.path.isabs(options.job.dataset)


def test_every_queue_flag_reaches_its_setting() -> None:
    options = run_options(
        [
            "--follow",
            f"--mns_queues={QUEUE}, other",
            "--mns_endpoint=http://127.0.0.1:1",
            "--dybaseapi_endpoint=http://127.0.0.1:2",
            "--mns_wait_secs=3",
            "--mns_drain_wait_secs=2",
            "--mns_fetchers=5",
            "--mns_ack_threads=6",
            "--mns_prefetch_messages=7",
            "--mns_max_bundle_messages=8",
            "--mns_max_bundle_secs=9.5",
            "--mns_visibility_timeout_secs=100",
            "--mns_renewal_margin_secs=11.5",
            "--mns_max_hold_secs=120.5",
            "--mns_start_tries=2",
            "--epoch_secs=0.5",
            "--landing_processes=2",
            "--max_failed_share=0.25",
            "--failed_share_window_messages=400",
        ]
    )

    assert options.mns == MnsSettings(
        queues=(QUEUE, "other"),
        mns_endpoint="http://127.0.0.1:1",
        dybaseapi_endpoint="http://127.0.0.1:2",
        wait_secs=3,
        drain_wait_secs=2,
        fetchers=5,
        ack_threads=6,
        prefetch_messages=7,
        max_bundle_messages=8,
        max_bundle_secs=9.5,
        visibility_timeout_secs=100,
        renewal_margin_secs=11.5,
        max_hold_secs=120.5,
        start_tries=2,
    )
    assert options.follow
    assert options.epoch_secs == 0.5
    assert options.landing_processes == 2
    assert options.failure_limit == FailureLimit(share=0.25, window_messages=400)


@pytest.mark.parametrize(
    ("flag", "address"),
    [
        ("--metrics_port=9464", ("127.0.0.1", 9464)),
        ("--metrics_port=0", ("127.0.0.1", 0)),
        ("--metrics_port=:9464", ("127.0.0.1", 9464)),
        ("--metrics_port=0.0.0.0:9464", ("0.0.0.0", 9464)),  # noqa: S104 - not listened at
        ("--metrics_port=[::1]:9464", ("::1", 9464)),
    ],
)
def test_metrics_are_served_on_this_machine_alone_unless_told(
    flag: str, address: tuple[str, int]
) -> None:
    assert run_options([*RUN, flag]).metrics_address == address


@pytest.mark.parametrize("spelling", ["--until-empty", "--until_empty"])
def test_until_empty_is_spelt_either_way(spelling: str) -> None:
    assert not run_options([spelling, f"--mns_queues={QUEUE}"]).follow


@pytest.mark.parametrize(
    ("flags", "runner"),
    [
        ([], "FnApiRunner"),
        (["--runner=DirectRunner"], "FnApiRunner"),
        (["--runner=FlinkRunner"], "FlinkRunner"),
    ],
)
def test_the_runner_is_always_named(flags: Sequence[str], runner: str) -> None:
    beam_args = backfill_options([*BACKFILL, *flags]).job.beam_args

    assert list(beam_args) == [f"--runner={runner}"]


def test_flags_of_beam_are_handed_on() -> None:
    options = run_options([*RUN, "--direct_num_workers=2", "--direct_running_mode", "in_memory"])

    assert options.job.beam_args[1:] == [
        "--direct_num_workers=2",
        "--direct_running_mode",
        "in_memory",
    ]


def test_flags_that_only_a_runner_elsewhere_knows_are_handed_on() -> None:
    options = backfill_options([*BACKFILL, "--runner=FlinkRunner", "--checkpointing_interval=1000"])

    assert options.job.beam_args[1:] == ["--checkpointing_interval=1000"]


def test_a_range_of_days_includes_both_ends() -> None:
    options = backfill_options(BACKFILL)

    assert [day_name(day) for day in (options.days[0], options.days[-1])] == [
        "2026-11-01",
        "2026-11-07",
    ]
    assert options.as_of is None


@pytest.mark.parametrize("text", ["2026-11-08T08:00:00+08:00", "2026-11-08T00:00:00Z"])
def test_a_moment_has_an_offset(text: str) -> None:
    options = backfill_options([*BACKFILL, f"--as_of={text}"])

    assert options.as_of == datetime(2026, 11, 8, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((), "required: --mns_queues; .* --help explains the flags"),
        ((f"--mns_queues={QUEUE}",), "one of the arguments --until-empty.* is required"),
        ((*RUN, "--follow"), "not allowed with"),
        (("--until-empty", "--mns_queues="), "--mns_queues is empty"),
        (("--until-empty", "--mns_queues=a_b"), "'a_b' is no queue name"),
        (("--until-empty", f"--mns_queues={QUEUE},{QUEUE}"), "names a queue twice"),
        ((*RUN, "--mns_endpoint=localhost:8650"), "--mns_endpoint must be http"),
        ((*RUN, "--dybaseapi_endpoint=ftp://a"), "--dybaseapi_endpoint must be http"),
        ((*RUN, "--mns_wait_secs=31"), "--mns_wait_secs must be 0-30"),
        ((*RUN, "--mns_wait_secs=many"), "--mns_wait_secs: invalid int value: 'many'"),
        ((*RUN, "--mns_fetchers=0"), "--mns_fetchers must be at least 1"),
        ((*RUN, "--mns_max_bundle_secs=0"), "--mns_max_bundle_secs must be more than 0"),
        (
            (*RUN, "--mns_visibility_timeout_secs=43201"),
            "--mns_visibility_timeout_secs must be 1-43200",
        ),
        ((*RUN, "--mns_renewal_margin_secs=50"), "--mns_renewal_margin_secs must be"),
        ((*RUN, "--mns_max_hold_secs=1"), "--mns_max_hold_secs must be at least"),
        ((*RUN, "--epoch_secs=0"), "--epoch_secs must be a number more than 0"),
        ((*RUN, "--epoch_secs=nan"), "--epoch_secs must be a number more than 0"),
        ((*RUN, "--landing_processes=0"), "--landing_processes must be 1-64"),
        ((*RUN, "--landing_processes=65"), "--landing_processes must be 1-64"),
        ((*RUN, "--max_failed_share=1.5"), "--max_failed_share must be 0-1; 1 never stops"),
        ((*RUN, "--max_failed_share=half"), "--max_failed_share: invalid float value: 'half'"),
        ((*RUN, "--failed_share_window_messages=0"), "--failed_share_window_messages must be at"),
        ((*RUN, "--metrics_port=65536"), r"--metrics_port: '65536' is no \[HOST:\]PORT, as 9464"),
        ((*RUN, "--metrics_port=here"), r"--metrics_port: 'here' is no \[HOST:\]PORT"),
        ((*RUN, "--metrics_port="), r"--metrics_port: '' is no \[HOST:\]PORT"),
        ((*RUN, "--join_patience_secs=-1"), "--join_patience_secs must be 0-31536000"),
        ((*RUN, "--join_patience_secs=1e3"), "--join_patience_secs: invalid int value"),
        ((*RUN, "--join_patience_secs=99999999999999"), "must be 0-31536000"),
        ((*RUN, "--archive=gs://bucket/a"), "--archive must be a directory .*'gs://bucket/a'"),
        ((*RUN, "--dataset=s3://bucket/a"), "--dataset must be a directory .*'s3://bucket/a'"),
        ((*RUN, "--dataset="), "--dataset must be a directory of a file system, and not ''"),
        ((*RUN, "--arhcive=x"), "There is no flag --arhcive"),
        ((*RUN, "--mns_fetcher", "3"), "There is no flag --mns_fetcher"),
        ((*RUN, "--verbose"), "There is no flag --verbose"),
        ((*RUN, "--runner=Nonsense"), "There is no Beam runner Nonsense: use FnApiRunner"),
        ((*RUN, "--runner=no.such.Runner"), "There is no Beam runner no.such.Runner"),
        ((*RUN, "--direct_num_workers=x"), "^argument --direct_num_workers: invalid int value"),
        ((*RUN, "--send_log", "a.jsonl", "b.jsonl"), "'b.jsonl' belongs to no flag: put a glob"),
        ((*RUN, "--direct_num_workers", "2", "b.jsonl"), "'b.jsonl' belongs to no flag"),
        ((*RUN, "--direct_num_workers=2", "b.jsonl"), "'b.jsonl' belongs to no flag"),
    ],
)
def test_a_wrong_flag_of_run_is_told_in_a_sentence(flags: Sequence[str], sentence: str) -> None:
    with pytest.raises(OperatorError, match=sentence):
        run_options(flags)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--from=2026-11-01",), "required: --to"),
        (("--from=2026-11-01", "--to=11/07/2026"), "--to must be a day, as 2026-11-01 is"),
        (("--from=2026-11-31", "--to=2026-12-01"), "--from must be a day"),
        (("--from=2026-11-02", "--to=2026-11-01"), "--to is before --from: swap them"),
        ((*BACKFILL, "--as_of=2026-11-08"), "--as_of must be a moment with its offset"),
        ((*BACKFILL, "--as_of=2026-11-08T00:00:00"), "--as_of must be a moment with its offset"),
        ((*BACKFILL, "--as_of=now"), "--as_of must be a moment with its offset"),
        ((*BACKFILL, "--fro=2026-11-01"), "There is no flag --fro"),
    ],
)
def test_a_wrong_flag_of_backfill_is_told_in_a_sentence(
    flags: Sequence[str], sentence: str
) -> None:
    with pytest.raises(OperatorError, match=sentence):
        backfill_options(flags)


@pytest.mark.parametrize("options", [run_options, backfill_options])
def test_help_explains_and_leaves(
    options: Callable[[Sequence[str]], object], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        options(["--help"])

    assert "--join_patience_secs" in capsys.readouterr().out


def test_the_command_without_words_tells_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "backfill" in capsys.readouterr().out


def test_an_unknown_command_is_told_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rnu"]) == 2

    shown = capsys.readouterr().err
    assert shown.startswith("sms-receipts: there is no command 'rnu'.")
    assert "backfill" in shown


def test_a_wrong_flag_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--until-empty"]) == 2

    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == (
        "sms-receipts run: the following arguments are required: --mns_queues; "
        "sms-receipts run --help explains the flags.\n"
    )
