"""The workrooms: pure functions, and one thin PTransform around each."""
