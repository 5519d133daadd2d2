"""Search in corpora by description or example: embedding stores, the index, queries.

:func:`embed_corpus` embeds a manifest into an :class:`EmbeddingStore`, by any number of processes.
"""

from speechbrain_clsp.search.embed import KnownVectors, Settings, describe_run, embed_corpus
from speechbrain_clsp.search.store import EmbeddingStore, Provenance, write_store

__all__ = [
    "EmbeddingStore",
    "KnownVectors",
    "Provenance",
    "Settings",
    "describe_run",
    "embed_corpus",
    "write_store",
]
