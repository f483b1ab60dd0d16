"""The embedders that a configuration can name, and what is remembered of them: which vectors were made with what."""

from polystore.embedders.configured import EmbedderConfig, checked, config_of, make, public
from polystore.embedders.made import (
    GIVEN,
    Made,
    kept,
    made,
    made_again,
    model_of,
    read_made,
    write_configs,
    write_made,
)

__all__ = [
    "GIVEN",
    "EmbedderConfig",
    "Made",
    "checked",
    "config_of",
    "kept",
    "made",
    "made_again",
    "make",
    "model_of",
    "public",
    "read_made",
    "write_configs",
    "write_made",
]
