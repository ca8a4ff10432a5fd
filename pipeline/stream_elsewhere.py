"""The streaming job on an engine that runs it far from here."""

from collections.abc import Callable
from threading import Event
from typing import Any, Final

import apache_beam as beam
from apache_beam.runners.runner import PipelineState

from pipeline.graph_faults import sentence_in
from pipeline.stopping import is_stop_requested, stopping_on_signals

_LEAVING: Final = b"leaving: the job goes on\n"
_LOOK_SECS: Final = 10.0


def run_on_dataflow(pipeline: beam.Pipeline, say: Callable[[str], None]) -> str:
    """Hand the job in and say how it stands until a signal comes, or it ends; return how, in words.

    Raises:
        OperatorError: only the operator can help.
        RuntimeError: the job has failed for a reason that nobody foresaw.
    """
    with stopping_on_signals(_LEAVING):
        result: Any = pipeline.run()  # Dataflow's has more than Beam's other results
        job_id = result.job_id()
        say(f"dataflow: job {job_id}")
        state, pause = None, Event()
        while not is_stop_requested():
            if result.state != state:
                state = result.state
                say(f"dataflow: {state}")
            if PipelineState.is_terminal(state):
                break
            pause.wait(_LOOK_SECS)
    if state == PipelineState.FAILED:
        try:
            result.wait_until_finish()
        except RuntimeError as failure:
            raise (sentence_in(str(failure)) or failure) from None
    if PipelineState.is_terminal(state):
        return f"The job {job_id} has ended ({state})."
    return (
        f"The job {job_id} goes on. Replace it by a new version with --update and the same --job_name. "
        "Draining it (gcloud dataflow jobs drain) ends everybody's patience: open sends leave as unreported."
    )
