"""Tests of the MNS door."""
