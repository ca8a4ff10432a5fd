"""The data-checking simulator: sends, reports, faults and crashes out of a seed; the ledger must close.

    python -m tests.simulation --seed 123              # one seed, as a failing test prints it
    python -m tests.simulation --seeds 10000 --from 0  # many, on two lanes

A *scenario* (``scenario.py``) is a pure function of its seed: what is sent and logged when, what the queues
do wrong (the emulator's fault plan), where the clock jumps and where the job is killed. A *lane*
(``lane.py``) is an emulator and a launcher that forks the real job, once a round, with a clock that both of
them share. After every round and at the end, ``simulate.py`` compares what became of the messages with the
books (``books.py``) of what it enqueued and logged itself; what the tables must hold is worked out by
``tests/job/oracle.py``, in plain Python.

A seed kills at operations that it draws. The moments that have a name (``crash_points.py``) are covered one
by one by ``test_crash_points.py``, and ``test_simulation.py`` sees that a job broken on purpose is caught.

What a seed does not decide: how threads and sockets interleave, and how long the machine takes. So a failing
seed fails again nearly always, but not with certainty; run it a few times.
"""
