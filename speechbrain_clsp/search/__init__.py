"""Search in corpora by description or example: embedding stores, the index, queries.

:func:`embed_corpus` embeds a manifest into an :class:`EmbeddingStore`, by any number of processes;
:class:`StyleIndex` holds its vectors with the manifest's columns, and :func:`find` answers queries.
"""

from speechbrain_clsp.search.embed import KnownVectors, Settings, describe_run, embed_corpus
from speechbrain_clsp.search.engines import Engine
from speechbrain_clsp.search.index import StyleIndex
from speechbrain_clsp.search.queries import Hit, Query, find
from speechbrain_clsp.search.store import EmbeddingStore, Provenance, write_store

__all__ = [
    "EmbeddingStore",
    "Engine",
    "Hit",
    "KnownVectors",
    "Provenance",
    "Query",
    "Settings",
    "StyleIndex",
    "describe_run",
    "embed_corpus",
    "find",
    "write_store",
]
