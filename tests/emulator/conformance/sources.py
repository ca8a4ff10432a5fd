"""Where a case comes from, in its id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from _pytest.mark import ParameterSet


def case(source: str, shows: str, *values: object) -> ParameterSet:
    """Make one row of a table of cases: ``values`` are the test's parameters."""
    return pytest.param(*values, id=f"{shows} ({source})")


def source(where: str) -> pytest.MarkDecorator:
    """Name the source of a test that is one case by itself (see the fixture of that name)."""
    return pytest.mark.parametrize("source", [pytest.param(where, id=where)])
