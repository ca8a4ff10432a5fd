"""Tests of what puts history right: reconcile and audit."""
