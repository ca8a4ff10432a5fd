"""A process that takes all messages of a subscription, says how many, and keeps them until it is killed."""

import sys
import time

from pipeline.pubsub.settings import PubSubSettings
from pipeline.pubsub.spec import PubSubInboxSpec


def main(subscription: str, messages: int) -> None:
    settings = PubSubSettings(subscription, wait_secs=1, ack_deadline_secs=10)
    inbox = PubSubInboxSpec(settings).open("held", lambda: None)
    inbox.start()
    taken = 0
    while taken < messages:
        batch = inbox.take(1.0)
        taken += len(batch.messages) if batch else 0
    sys.stdout.write("held\n")
    sys.stdout.flush()
    while True:
        time.sleep(60)  # until somebody kills it


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
