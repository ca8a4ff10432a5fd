"""Sinks: where the rows of a stream go.

Each is a PTransform over ``PCollection[tuple[str, bytes]]``: the name of a table, and packed rows of it
(``transforms.packed``). All of them write at least once: after a crash rows come again, with the same ids
(``transforms.row_ids``), so readers tell repeats by the id. What a sink cannot write fails the bundle, with
one sentence: nothing is dropped, and the engine tries again.
"""
