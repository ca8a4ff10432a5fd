"""Inboxes: how the pipeline reads from whatever hands out messages and wants them acknowledged.

``inbox`` says what an inbox is; ``pipeline.mns`` and others are some. ``source`` reads any number of
them with Beam.
"""
