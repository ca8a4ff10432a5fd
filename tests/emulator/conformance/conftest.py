"""Fixtures of the conformance cases."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.emulator.conformance.cloud import Cloud, LocalMns
from tests.emulator_process import EmulatorProcess, start_emulator_process


@pytest.fixture(autouse=True)
def source() -> str:
    """What :func:`tests.emulator.conformance.sources.source` puts into the id of a test."""
    return ""


@pytest.fixture
def cloud() -> Cloud:
    """Alibaba's services in this process, with the emulator's defaults."""
    return Cloud()


@pytest.fixture
def local(cloud: Cloud) -> LocalMns:
    """The account's own MNS client, with one queue named ``q``."""
    assert cloud.mns.create("q").status == 201
    return cloud.mns


@pytest.fixture(scope="session")
def otherwise() -> Iterator[EmulatorProcess]:
    """An emulator that gives the other answer to each open question."""
    process = start_emulator_process(
        "--expired_token_code=SecurityTokenExpired",
        "--time_expired_status=400",
        "--dead_handle_code=MessageNotExist",
        "--wrong_digest_code=InvalidDegist",
        "--ram_denial_code=AccessDenied",
        "--allow_zero_visibility",
        "--allow_token_attributes",
        "--check_content_type",
        "--zero_depths",
        "--deleted_queue_secs=60",
        "--queue_qps=15",
        "--details_of_2017",
    )
    yield process
    process.stop()
