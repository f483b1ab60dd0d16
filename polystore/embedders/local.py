"""A model in this process, by the package sentence-transformers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import import_module
from threading import Lock
from typing import Any

from polystore.embedders.configured import EmbedderConfig
from polystore.embedding import Purpose
from polystore.errors import ConfigurationError, DimensionMismatch


class LocalEmbedder:
    """A model that is loaded when it is first asked and works in a thread, one batch at a time."""

    def __init__(self, config: EmbedderConfig) -> None:
        assert config.dimension is not None
        self.config = config
        self.name = config.name
        self.dimension = config.dimension
        self.batch_max = config.batch_max
        self.chars_max = config.chars_max
        self._model: Any = None
        self._lock = Lock()

    async def embed(self, texts: Sequence[str], *, purpose: Purpose) -> Sequence[Sequence[float]]:
        """One vector for each text, in the order asked. Raises ConfigurationError for a model that cannot be loaded,
        DimensionMismatch for one of another dimension."""
        prefix = self.config.query_prefix if purpose == "query" else self.config.document_prefix
        return await asyncio.to_thread(self._encode, [prefix + text for text in texts])

    def _encode(self, texts: list[str]) -> Sequence[Sequence[float]]:
        with self._lock:
            if self._model is None:
                self._model = self._load()
            vectors = self._model.encode(texts, batch_size=self.batch_max, show_progress_bar=False)
        found: list[list[float]] = vectors.tolist()
        return found

    def _load(self) -> Any:
        sentence_transformers: Any = import_module("sentence_transformers")
        try:
            model: Any = sentence_transformers.SentenceTransformer(
                self.config.model, truncate_dim=self.dimension if self.config.shorten else None
            )
        except (OSError, ValueError) as e:
            raise ConfigurationError(
                f"sentence-transformers cannot load {self.config.model!r} ({type(e).__name__}); give the folder of a "
                "model, or a name that it can download"
            ) from e
        makes = model.get_sentence_embedding_dimension()
        if makes != self.dimension:
            raise DimensionMismatch(
                f"{self.config.model!r} makes vectors of {makes} components, the configuration says {self.dimension}"
            )
        return model
