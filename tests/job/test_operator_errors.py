"""What only the operator can mend: one sentence, exit code 2, no traceback, and nothing lost."""

import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import requests

from tests.emulator_process import EmulatorProcess, start_emulator_process
from tests.job.commands import Ended, Job
from tests.job.oracle import expected_tables, tables_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def full() -> Iterator[EmulatorProcess]:
    """An emulator with messages on its queues that no test here takes."""
    emulator = start_emulator_process("--traffic=50")
    before = visible(emulator)
    assert before
    yield emulator
    after = visible(emulator)
    emulator.stop()
    assert after == before


@pytest.fixture
def job(full: EmulatorProcess, tmp_path: Path) -> Job:
    (tmp_path / "send_log").mkdir()
    return Job(full, tmp_path)


def visible(emulator: EmulatorProcess) -> int:
    told = requests.get(f"{emulator.url}/emulator", timeout=10).json()
    return sum(sum(depths.values()) for depths in told["queues"].values())


def told(ended: Ended, command: str = "run") -> str:
    """The sentence, without its prefix."""
    assert ended.exit_code == 2, ended.err
    assert ended.out == ""
    prefix = f"sms-receipts {command}: "
    sentence = ended.sentence
    assert sentence.startswith(prefix), ended.err
    assert "emulator-key-secret" not in ended.err
    return sentence.removeprefix(prefix)


def test_wrong_keys(job: Job) -> None:
    job.environment["ALIBABA_CLOUD_ACCESS_KEY_SECRET"] = "wrong"  # noqa: S105

    sentence = told(job.run())

    assert re.search(
        r"refused the account keys .*\(SignatureDoesNotMatch\): set ALIBABA_", sentence
    )


def test_no_keys_at_all(job: Job) -> None:
    job.environment["ALIBABA_CLOUD_ACCESS_KEY_ID"] = ""
    job.environment["ALIBABA_CLOUD_ACCESS_KEY_SECRET"] = ""
    job.environment["HOME"] = str(job.root)

    assert re.search("No Alibaba Cloud account keys were found .*: set ALIBABA_", told(job.run()))


def test_a_wrong_queue_name(job: Job) -> None:
    queue = job.emulator.report_queue.replace("1000000000000001", "1000000000000002")

    sentence = told(job.run(f"--mns_queues={queue}"))

    assert re.search(f"queue {queue} .*check", sentence)


def test_an_endpoint_where_nobody_answers(job: Job) -> None:
    sentence = told(
        job.run(
            "--mns_endpoint=http://127.0.0.1:9",
            "--dybaseapi_endpoint=http://127.0.0.1:9",
            "--mns_start_tries=1",
        )
    )

    assert re.search("127.0.0.1:9.*check --mns_endpoint and --dybaseapi_endpoint", sentence)


def test_a_send_log_that_matches_nothing(job: Job) -> None:
    sentence = told(job.run(f"--send_log={job.root}/nowhere/*.jsonl"))

    assert re.search("No send log file matches .*: correct --send_log", sentence)


def test_a_send_log_of_an_unknown_kind(job: Job) -> None:
    (job.send_log / "sends.csv").write_text("biz_id\n1", encoding="ascii")

    assert re.search("sends.csv is of an unknown kind: .*", told(job.run()))


def test_a_send_log_that_is_not_what_its_name_says(job: Job) -> None:
    (job.send_log / "sends.parquet").write_text("no Parquet at all", encoding="ascii")

    assert re.search("sends.parquet cannot be read", told(job.run()))


def test_an_archive_that_cannot_be_written(job: Job) -> None:
    (job.root / "file").touch()

    sentence = told(job.run(f"--archive={job.root}/file/archive"))

    assert re.search(r"The archive .* cannot be written \(.*\): free space", sentence)


@pytest.mark.parametrize("place", ["file", "file/dataset"])
def test_a_dataset_that_cannot_be_written(job: Job, place: str) -> None:
    (job.root / "file").touch()

    sentence = told(job.run(f"--dataset={job.root}/{place}"))

    assert re.search(r"The dataset .* cannot be written \(.*\): free the disk", sentence)


def test_a_wrong_flag(job: Job) -> None:
    assert told(job.run("--patience=1")) == (
        "There is no flag --patience: --help explains the flags."
    )


def test_a_second_job_on_the_same_dataset(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    job = Job(start_emulator(), tmp_path)
    job.send_log.mkdir()
    day = ("--from=2026-11-01", "--to=2026-11-01")
    with job.follow() as following:
        following.wait_for("queues: reading")

        sentences = [told(job.run()), told(job.backfill(*day), "backfill")]

        assert following.stop().exit_code == 0
    for sentence in sentences:
        assert re.search(r"Another sms-receipts process .*--dataset\.", sentence)


def test_tokens_that_expire_while_they_are_used_are_replaced(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    emulator = start_emulator(
        "--traffic=4000", f"--traffic_send_log={tmp_path / 'send_log'}", "--token_lifetime_secs=1"
    )
    job = Job(emulator, tmp_path)

    ended = job.run("--mns_max_bundle_messages=64")

    assert ended.exit_code == 0, ended.err
    assert "The ledger is closed" in ended.out
    assert visible(emulator) == 0
    patience = timedelta(days=3)
    expected = expected_tables(job.archive, job.send_log_files, job.as_of(), patience)
    assert tables_of(job.dataset) == expected


def test_a_full_disk_loses_nothing(
    start_emulator: Callable[..., EmulatorProcess], tmp_path: Path
) -> None:
    log = tmp_path / "send_log"
    # One queue and one bundle, so that what does not fit does not fit as a whole.
    flags = ("--traffic=8000", "--carrier_reply_rate=0", f"--traffic_send_log={log}")
    job = Job(start_emulator(*flags), tmp_path)
    waiting = visible(job.emulator)
    one_bundle = "--mns_max_bundle_secs=15"

    # Bytes that a file may have. First not even the catalog fits, then not the archive, then not the tables.
    assert re.search(r"The dataset .* \(disk I/O error\): free ", told(job.run(limit_bytes=10_000)))
    assert re.search(
        r"The archive .* \(File too large\): free ", told(job.run(one_bundle, limit_bytes=100_000))
    )
    assert visible(job.emulator) == waiting
    landed = told(job.run(one_bundle, limit_bytes=300_000))
    assert re.search(r"The dataset .* \(File too large\): free ", landed)
    assert visible(job.emulator) == 0

    freed = job.run()

    assert freed.exit_code == 0, freed.err
    assert freed.counts["pending before"] == waiting
    patience = timedelta(days=3)
    expected = expected_tables(job.archive, job.send_log_files, job.as_of(), patience)
    assert tables_of(job.dataset) == expected
