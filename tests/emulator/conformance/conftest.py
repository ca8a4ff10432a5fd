"""Fixtures of the conformance cases."""

from __future__ import annotations

import pytest

from tests.emulator.conformance.cloud import Cloud, LocalMns


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
