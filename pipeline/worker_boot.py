"""``sms-receipts-worker``: what an engine starts as its Python worker where there is no Docker.

Beam's containers begin with a program that asks the engine for what its flags leave out, and then becomes
the worker. This is that program for an engine whose machines have this package installed:
``--environment_type=PROCESS`` with this command, which ``sms-receipts stream`` chooses by itself on Flink.
The engine starts one for each of its task managers, and ends it.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Final, NoReturn

import grpc
from apache_beam.portability.api import beam_provision_api_pb2 as provision
from apache_beam.portability.api import beam_provision_api_pb2_grpc as provision_service
from google.protobuf import json_format

from pipeline.memory import choose_allocator

_ANSWER_SECS: Final = 60.0
# A file to which a worker's own output is appended. Engines that start processes throw it away (Flink) or
# show it as theirs (Prism); what a worker logs reaches the engine's log in any case.
_LOG: Final = "SMS_RECEIPTS_WORKER_LOG"


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Become the worker that the engine has asked for."""
    parser = argparse.ArgumentParser(prog="sms-receipts-worker", description=__doc__)
    parser.add_argument("--id", required=True, help="name of the worker")
    parser.add_argument("--provision_endpoint", required=True, help="who knows the rest")
    flags, _ = parser.parse_known_args(argv)
    # Prism 2.77 puts the id into quotes, as if a shell were to read it.
    worker_id = flags.id.strip("'")
    environment = worker_environment(
        worker_id, _provision_info(flags.provision_endpoint, worker_id)
    )
    choose_allocator()
    if path := os.environ.get(_LOG):
        log = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
        os.dup2(log, sys.stdout.fileno())
        os.dup2(log, sys.stderr.fileno())
    command = [sys.executable, "-m", "apache_beam.runners.worker.sdk_worker_main"]
    os.execve(sys.executable, command, {**os.environ, **environment})  # noqa: S606 (nobody's words)


def worker_environment(worker_id: str, info: provision.ProvisionInfo) -> dict[str, str]:
    """Lay out what an engine says as the variables that Beam's worker reads; addresses are protobuf text."""
    return {
        "WORKER_ID": worker_id,
        "CONTROL_API_SERVICE_DESCRIPTOR": str(info.control_endpoint),
        "LOGGING_API_SERVICE_DESCRIPTOR": str(info.logging_endpoint),
        "PIPELINE_OPTIONS": json_format.MessageToJson(info.pipeline_options),
        "RUNNER_CAPABILITIES": " ".join(info.runner_capabilities),
    }


def _provision_info(address: str, worker_id: str) -> provision.ProvisionInfo:
    with grpc.insecure_channel(address) as channel:
        answer = provision_service.ProvisionServiceStub(channel).GetProvisionInfo(
            provision.GetProvisionInfoRequest(),
            metadata=[("worker_id", worker_id)],
            timeout=_ANSWER_SECS,
        )
    info: provision.ProvisionInfo = answer.info
    return info


if __name__ == "__main__":
    main()
