"""The streaming graph on real engines: ``python -m benchmarks.streaming``."""
