"""The journal of a home: what copies are owed, who delivers it, and that none of it is ever lost."""

from polystore.testing.conformance.kept_vectors import KeptVectorsConformance
from polystore.testing.conformance.outbox import OutboxConformance
from polystore.testing.conformance.retries import RetriesConformance


class JournalConformance(OutboxConformance, KeptVectorsConformance, RetriesConformance):
    """Outbox rows, retry rows, dead letters, workers, targets, marks and kept vectors."""
