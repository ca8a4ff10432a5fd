"""The loop that Alibaba's own client leads to: receive 16, decode, append to a file, delete.

    python -m benchmarks.competitors.official_sdk ENDPOINT OUTPUT QUEUE [QUEUE ...]

It uses the account's keys on the queues, so it fetches no queue token; it validates nothing, joins
nothing and syncs nothing. Prints how many messages it has deleted.
"""

from __future__ import annotations

import argparse
import os
from typing import IO, Any

from mns.account import Account
from mns.mns_exception import MNSServerException

_BATCH: int = 16


def main() -> None:
    """Drain the queues one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("endpoint")
    parser.add_argument("output")
    parser.add_argument("queues", nargs="+")
    arguments = parser.parse_args()
    account = Account(
        arguments.endpoint,
        os.environ["ALIBABA_CLOUD_ACCESS_KEY_ID"],
        os.environ["ALIBABA_CLOUD_ACCESS_KEY_SECRET"],
    )
    with open(arguments.output, "wb") as output:
        print(sum(_drain(account.get_queue(name), output) for name in arguments.queues))


def _drain(queue: Any, output: IO[bytes]) -> int:
    deleted = 0
    while True:
        try:
            # The client decodes the base64 of the bodies. No long poll: the queue is full or done.
            messages = queue.batch_receive_message(_BATCH, 0)
        except MNSServerException as error:
            if error.type == "MessageNotExist":
                return deleted
            raise
        for message in messages:
            output.write(message.message_body + b"\n")
        output.flush()
        queue.batch_delete_message([message.receipt_handle for message in messages])
        deleted += len(messages)


if __name__ == "__main__":
    main()
