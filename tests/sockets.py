"""What drivers leave behind."""

import gc
import warnings
from collections.abc import Generator
from contextlib import contextmanager


@contextmanager
def forgotten_connections() -> Generator[None]:
    """PyMongo and Neo4j's driver forget the socket of a connection that is cancelled while it is made, without closing
    it: collected here, where it is expected, and not in the middle of another test."""
    gc.freeze()  # what was there before is not looked at again, which would take a second in a long run
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()
    gc.unfreeze()
