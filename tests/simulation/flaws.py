"""Ways to break the job on purpose, in the process under test only: the simulator must notice each."""

from __future__ import annotations

from typing import Any

from pipeline.catalog import Catalog, Commit
from pipeline.mns.client import MnsClient
from transforms.tables import Written


def acknowledges_at_once() -> None:
    """Delete messages as soon as they are received, before anything is archived."""
    receive = MnsClient.receive

    def hasty(self: MnsClient, queue_name: str, *rest: Any) -> Any:
        received = receive(self, queue_name, *rest)
        if received is not None:
            self.delete(queue_name, received.receipt_handles)
        return received

    MnsClient.receive = hasty  # type: ignore[method-assign, assignment]


def forgets_what_is_written() -> None:
    """Let an epoch believe that nothing was ever written."""
    Written.files = lambda *_: []  # type: ignore[method-assign]


def keeps_what_it_replaces() -> None:
    """Commit new files without letting the old ones go."""
    commit = Catalog.commit

    def careless(self: Catalog, what: Commit, attempt: str) -> int:
        return commit(self, what._replace(removed=()), attempt)

    Catalog.commit = careless  # type: ignore[method-assign, assignment]
