"""Whole histories of several processes and servers, from one seed each: run by `python -m polystore.testing.simulate`.

Read `scenario.py` (what a seed is about), `world.py` (one history), `network.py` and `process.py` (what may go wrong),
`workload.py` (what the application does), `growing.py` (copies that move), `history.py` and `checkers.py` (what is
recorded and must hold), `bugs.py` (planted faults, each of which must be found).
"""

from polystore.testing.simulation.world import Report, simulate

__all__ = ["Report", "simulate"]
