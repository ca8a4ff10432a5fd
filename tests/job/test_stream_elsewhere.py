"""Dataflow, as far as it can be seen from here: what it is handed, and what is said of a job."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.runners.runner import PipelineResult, PipelineRunner, PipelineState

from pipeline.errors import OperatorError
from pipeline.options_stream import stream_options
from pipeline.stopping import forget_stop
from pipeline.stream_elsewhere import run_on_dataflow

JOB = (
    "--runner=DataflowRunner",
    "--mns_queues=Alicom-Queue-1000000000000001-SmsReport",
    "--parquet_sink=gs://bucket/rows",
    "--archive=gs://bucket/archive",
)
SIGNALLED = "somebody stops the command"
FAILED = (
    "Dataflow pipeline failed. State: FAILED, Error:\n"
    "pipeline.errors.CredentialsError: The account's keys are refused: correct them. "
    "[while running 'ReadInboxes']\n"
)


class FarJob(PipelineResult):
    """A job as Dataflow's client shows it, in one state after the other; the last one stays."""

    def __init__(self, states: Sequence[str]) -> None:
        super().__init__(states[-1])
        self._states: Iterator[str] = iter(states)

    @property
    def state(self) -> str:
        state = next(self._states, self._state)
        if state == SIGNALLED:
            os.kill(os.getpid(), signal.SIGTERM)
            return str(self._state)
        return str(state)

    def job_id(self) -> str:
        return "2026-11-01_04_00_00-1"

    def wait_until_finish(self, duration: int | None = None) -> str:  # noqa: ARG002
        raise RuntimeError(FAILED)


class FarRunner(PipelineRunner):
    def __init__(self, *states: str) -> None:
        self._states = states

    def run_pipeline(self, pipeline: beam.Pipeline, options: PipelineOptions) -> FarJob:  # noqa: ARG002
        return FarJob(self._states)


@pytest.fixture(autouse=True)
def _nobody_has_asked_to_stop() -> Iterator[None]:
    yield
    forget_stop()


def test_the_states_of_a_job_are_told_until_it_ends() -> None:
    pipeline = beam.Pipeline(runner=FarRunner(PipelineState.DONE))
    said: list[str] = []
    ended = run_on_dataflow(pipeline, said.append)
    assert said == ["dataflow: job 2026-11-01_04_00_00-1", "dataflow: DONE"]
    assert ended == "The job 2026-11-01_04_00_00-1 has ended (DONE)."


def test_a_job_that_fails_for_the_operator_says_so_in_a_sentence() -> None:
    pipeline = beam.Pipeline(runner=FarRunner(PipelineState.FAILED))
    with pytest.raises(OperatorError, match=r"^The account's keys are refused: correct them\.$"):
        run_on_dataflow(pipeline, list[str]().append)


def test_a_signal_leaves_the_job_alone() -> None:
    pipeline = beam.Pipeline(runner=FarRunner(SIGNALLED, PipelineState.RUNNING))
    ended = run_on_dataflow(pipeline, list[str]().append)
    assert ended.startswith("The job 2026-11-01_04_00_00-1 goes on. Replace it")


def test_dataflow_is_told_how_to_build_its_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam.runners.dataflow.internal.apiclient", sys)
    options = stream_options([*JOB, "--project=p", "--setup_file=./setup.py"])
    assert list(options.beam_args) == [
        *("--runner=DataflowRunner", "--streaming", "--job_name=sms-receipts"),
        *("--project=p", "--setup_file=./setup.py"),
    ]


def test_dataflow_without_its_packages_is_refused_with_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "apache_beam.runners.dataflow.internal.apiclient", None)
    with pytest.raises(OperatorError, match=r"pip install 'apache-beam\[gcp\]'"):
        stream_options(JOB)
