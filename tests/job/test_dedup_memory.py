"""To know what came before costs an epoch little memory, however much came before."""

from __future__ import annotations

import pytest

from benchmarks.dedup import MOST_BYTES_PER_KEY, bytes_per_key


@pytest.mark.integration
def test_a_key_that_was_written_before_costs_an_epoch_100_bytes_at_most() -> None:
    # Most of it is a row group of the file, which fewer keys would have to bear as well.
    (cost,) = bytes_per_key([600_000])

    assert 0 < cost <= MOST_BYTES_PER_KEY
