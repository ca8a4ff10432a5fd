"""The Pub/Sub door: the send log as messages of a subscription."""
