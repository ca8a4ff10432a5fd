"""Flags of ``stream``: what they mean, and one sentence for each that is wrong."""

import json
import sys
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from pipeline.engines import Engine, FlinkSettings
from pipeline.errors import OperatorError
from pipeline.options_stream import StreamOptions, stream_options
from pipeline.stream import plan
from schemas.records import MnsMessage
from transforms.archive import write_archive_file

NOON = datetime(2026, 11, 1, 4, tzinfo=timezone.utc)
QUEUE = "Alicom-Queue-1000000000000001-SmsReport"
JOB = (f"--mns_queues={QUEUE}", "--parquet_sink=out")
PRISM = ("--runner=PrismRunner", *JOB)
ENVIRONMENT = ("--environment_type=PROCESS", '--environment_config={"command": "/w"}')
FLINK = (
    *("--runner=FlinkRunner", "--flink_master=jm:8081", "--checkpointing_interval=10000"),
    *(*JOB, *ENVIRONMENT),
)


def flink_of(options: StreamOptions) -> FlinkSettings:
    assert options.flink is not None
    return options.flink


@pytest.mark.parametrize(
    ("spelling", "engine"),
    [
        ("PrismRunner", Engine.PRISM),
        ("prism", Engine.PRISM),
        ("apache_beam.runners.portability.prism_runner.PrismRunner", Engine.PRISM),
    ],
)
def test_an_engine_is_known_however_beam_spells_its_runner(spelling: str, engine: Engine) -> None:
    options = stream_options([*JOB, f"--runner={spelling}"])

    assert options.engine is engine
    assert options.beam_args[0] == f"--runner={engine.value}"


def test_prism_runs_the_code_in_this_process_and_splits_no_bundles() -> None:
    assert list(stream_options([*PRISM, "--experiments=theirs"]).beam_args) == [
        *("--runner=PrismRunner", "--streaming", "--job_name=sms-receipts"),
        "--environment_type=LOOPBACK",
        *("--experiments=prism_disable_sdf_split", "--experiments=theirs"),
    ]


def test_flink_is_told_what_the_join_and_the_queues_depend_on() -> None:
    options = stream_options([*FLINK, "--parallelism=4", "--savepoint_path=file:///s"])

    assert set(options.beam_args) >= {
        "--streaming",
        "--flink_master=jm:8081",
        "--parallelism=4",
        "--checkpointing_interval=10000",
        "--min_pause_between_checkpoints=500",
        "--max_bundle_time_mills=200",
        "--finish_bundle_before_checkpointing",
        "--externalized_checkpoints_enabled",
        "--retain_externalized_checkpoints_on_cancellation",
        "--savepoint_path=file:///s",
    }
    assert options.readers == 4


def test_task_managers_start_our_program_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = tmp_path / "sms-receipts-worker"
    command.touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    (given,) = (
        flag.partition("=")[2]
        for flag in stream_options([flag for flag in FLINK if flag not in ENVIRONMENT]).beam_args
        if flag.startswith("--environment_config=")
    )

    assert json.loads(given) == {"command": str(command)}


def test_another_environment_is_handed_on() -> None:
    docker = ("--environment_type=DOCKER", "--environment_config=image")

    assert set(stream_options([*FLINK, *docker]).beam_args) >= set(docker)


def test_flags_of_the_engine_are_handed_on() -> None:
    options = stream_options([*FLINK, "--state_backend=rocksdb", "--job_endpoint", "host:8099"])

    assert options.beam_args[-3:] == ["--state_backend=rocksdb", "--job_endpoint", "host:8099"]


@pytest.mark.parametrize(
    ("master", "url"),
    [
        ("jm:8081", "http://jm:8081"),
        ("http://jm:8081/", "http://jm:8081"),
        ("https://jm.example:443", "https://jm.example:443"),
        ("[::1]:8081", "http://[::1]:8081"),
    ],
)
def test_the_rest_api_is_at_the_master(master: str, url: str) -> None:
    assert flink_of(stream_options([*FLINK, f"--flink_master={master}"])).rest_url == url


def test_without_a_send_log_nobody_is_waited_for() -> None:
    assert stream_options(PRISM).joining.patience == timedelta()
    assert stream_options([*PRISM, "--send_log=x"]).joining.patience == timedelta(days=3)


def test_a_url_stays_and_a_directory_becomes_absolute() -> None:
    flags = ("--archive=gs://bucket/archive", "--avro_sink=avro")

    options = stream_options([*PRISM, *flags])

    assert options.archive == "gs://bucket/archive"
    assert options.sinks.avro == str(Path("avro").absolute())


def test_a_plan_tells_when_what_was_open_is_not_known(tmp_path: Path) -> None:
    flags = (*FLINK, f"--archive={tmp_path}")

    def state(*more: str) -> str:
        (line,) = (line for line in plan(stream_options([*flags, *more])) if "state" in line)
        return line

    assert state() == "plan: state     new"
    message = MnsMessage("m", QUEUE, "SmsReport", NOON, 1, b"{}")
    write_archive_file(str(tmp_path), [message], NOON)
    assert "the sends and reports that waited are not known (--savepoint_path goes on" in state()
    assert state("--savepoint_path=/s") == "plan: state     goes on from /s"


@pytest.mark.parametrize(
    "runner",
    [
        *("FnApiRunner", "DirectRunner", "direct", "SwitchingDirectRunner", "fnapirunner"),
        *("BundleBasedDirectRunner", "apache_beam.runners.direct.direct_runner.DirectRunner"),
    ],
)
def test_local_runners_are_refused_with_the_reason(runner: str) -> None:
    with pytest.raises(OperatorError, match="timers fire at once.* Use sms-receipts run"):
        stream_options([*JOB, f"--runner={runner}"])


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ((*JOB, "--runner=SparkRunner"), "SparkRunner cannot stream: it does not tell when a bundle"),
        ((*JOB, "--runner=spark"), "does not tell when a bundle is final"),
        ((*JOB, "--runner=PortableRunner"), "does not say which engine runs the job"),
        ((*JOB, "--runner=Nonsense"), "No engine is known that is called Nonsense: use --runner=Prism"),
        (JOB, "required: --runner"),
        (("--runner=PrismRunner", f"--mns_queues={QUEUE}"), "Rows need a place to go: .*--parquet_sink"),
        ((*PRISM, "--file_sink_secs=0"), "--file_sink_secs must be a number more than 0"),
        ((*PRISM, "--parquet_sink="), "--parquet_sink must be a directory, or a URL"),
        ((*PRISM, "--poll_secs=nan"), "--poll_secs must be a number more than 0"),
        (
            (*JOB, "--runner=DataflowRunner", "--send_log=x"),
            "--send_log follows files of one machine.*--send_log_subscription",
        ),
        ((*PRISM, "--detach"), "--detach is for Flink: on PrismRunner leave it out"),
        ((*PRISM, "--environment_type=DOCKER"), "On PrismRunner the code runs in this process"),
        ((*PRISM, "--arhcive=x"), "There is no flag --arhcive"),
        ((*PRISM, "--send_log=a", "--send_log_subscription=b"), "not allowed with"),
        ((*PRISM, "--send_log_subscription=s"), "'s' is no subscription"),
        (
            (*PRISM, "--send_log=a", "--archive=gs://b/a"),
            "--send_log_positions is missing: .* not in an object store",
        ),
        ((*PRISM, "--join_patience_secs=-1"), "--join_patience_secs must be 0-31536000"),
        (
            (*PRISM, "--send_log=a", "--join_memory_secs=3600"),
            "--join_memory_secs must be from --join_patience_secs",
        ),
        ((*PRISM, "--join_buckets=0"), "--join_buckets must be 1-1024"),
        ((*JOB, "--runner=FlinkRunner"), "--flink_master is missing: .*--checkpointing_interval=10000"),
        (
            (*JOB, "--runner=FlinkRunner", "--flink_master=jm:8081"),
            "--checkpointing_interval is missing: .* only they keep state",
        ),
        ((*FLINK, "--checkpointing_interval=0"), "--checkpointing_interval must be more than 0"),
        ((*FLINK, "--checkpointing_interval=-1"), "no message would ever be acknowledged"),
        ((*FLINK, "--shutdown_sources_after_idle_ms=1000"), "ends a stream before its rows have left"),
        ((*FLINK, "--shutdown_sources_after_idle_ms", "1"), "ends a stream before its rows have left"),
        ((*FLINK, "--flink_master=[local]"), "--flink_master must be the address of a cluster's REST"),
        ((*FLINK, "--flink_master=jm"), "--flink_master must be the address of a cluster's REST"),
        ((*FLINK, "--parallelism=0"), "--parallelism must be at least 1"),
        ((*FLINK, "--min_pause_between_checkpoints=0"), "must be at least 1 .* the one before is complete"),
        ((*FLINK, "--max_bundle_time_mills=0"), "--max_bundle_time_mills must be at least 1"),
        ((*FLINK, "--environment_type=LOOPBACK"), "would tie the job to this process"),
        (
            (*FLINK, "--checkpointing_interval=300000"),
            "--mns_max_hold_secs=600 is too short for --checkpointing_interval=300000: .* up to 663 s",
        ),
    ],
)  # fmt: skip
def test_a_wrong_flag_of_stream_is_told_in_a_sentence(flags: Sequence[str], sentence: str) -> None:
    with pytest.raises(OperatorError, match=sentence):
        stream_options(flags)


def test_a_worker_program_that_is_not_installed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))

    with pytest.raises(
        OperatorError, match="There is no .*/sms-receipts-worker, which task managers"
    ):
        stream_options([flag for flag in FLINK if flag not in ENVIRONMENT])
