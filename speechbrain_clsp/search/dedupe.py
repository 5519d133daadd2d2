"""Clips that are nearly the same in style and sound, found by an index."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

import numpy as np
import pyarrow as pa
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from speechbrain_clsp.search.index import StyleIndex
from speechbrain_clsp.search.store import EmbeddingStore, vectors_of

AT_ONCE = 128  # clips whose neighbors are searched together
NEIGHBORS = 20  # of the store that link a clip; more are searched if other stores' are among them
MOST_NEIGHBORS = 10_000


def find_duplicates(
    store: EmbeddingStore,
    index: StyleIndex,
    cosine: float,
    advance: Callable[[int], object] = lambda count: None,
) -> list[list[str]]:
    """Return groups of clips that are linked by cosines of at least ``cosine``.

    Arguments
    ---------
    store : EmbeddingStore
        Whose clips are compared.
    index : StyleIndex
        Of this store, and maybe others; of each clip, its 20 nearest neighbors of the store are
        looked at, or fewer if these are not among the 10,000 nearest of the index.
    cosine : float
        The least cosine of two clips that are nearly the same.
    advance : callable
        Gets the number of clips that were compared.

    Returns
    -------
    list of list of str
        Ids in the order of the store, groups in that of their first clips; only groups of several.

    Raises
    ------
    ValueError
        If ``cosine`` is not in (0, 1], or the index is of other clips or of another model.

    Example
    -------
    >>> from speechbrain_clsp.dataio.manifest import write_manifest
    >>> from speechbrain_clsp.search.store import write_store
    >>> tmp = getfixture("tmp_path")
    >>> _ = write_manifest(
    ...     tmp / "m.arrow", [{"id": n, "audio": n, "duration": 1.0} for n in "abc"]
    ... )
    >>> write_store(tmp / "store", "abc", np.eye(2)[[0, 1, 0]], source=str(tmp / "m.arrow"))
    >>> index = StyleIndex.create(tmp / "index", tmp / "store")
    >>> find_duplicates(EmbeddingStore(tmp / "store"), index, cosine=0.99)
    [['a', 'c']]
    """
    if not 0 < cosine <= 1:
        raise ValueError(f"cosine must be in (0, 1], not {cosine}")
    for name, what in (("weights_sha256", "the models differ"), ("kind", "one is of captions")):
        if getattr(store.provenance, name) != getattr(index.info, name):
            raise ValueError(f"{index.folder} is not an index of {store.folder}: {what}")
    names = store.ids()
    numbers = {name: number for number, name in enumerate(names)}
    edges, known = [], False
    for name, others, near in _neighbors(store, index, cosine, numbers, advance):
        own = [n for n, other in enumerate(others) if other in numbers]
        edges += [(numbers[name], numbers[others[n]]) for n in own if near[n]]
        known = known or bool(own)
    if names and not known:
        raise ValueError(f"{index.folder} is not an index of {store.folder}: it has other clips")
    ends = np.array(edges, int).reshape(-1, 2).T
    links = coo_array((np.ones(len(edges)), (ends[0], ends[1])), (len(names), len(names)))
    groups: dict[int, list[str]] = {}
    for name, group in zip(names, connected_components(links, directed=False)[1].tolist()):
        groups.setdefault(group, []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _neighbors(
    store: EmbeddingStore,
    index: StyleIndex,
    cosine: float,
    own: Container[str],
    advance: Callable[[int], object],
) -> Iterator[tuple[str, list[str], np.ndarray]]:
    """Yield each clip, its neighbors, itself among them, and which of these are near."""
    search = index.engine.search
    for shard in store.tables():
        ids = shard.column("id").to_pylist()
        vectors = _unit(vectors_of(shard.column("vector")))
        for start in range(0, len(vectors), AT_ONCE):
            part = vectors[start : start + AT_ONCE]
            for row, name, found in zip(part, ids[start:], search(part, NEIGHBORS)):
                k, (others, near) = NEIGHBORS, _compare(found, row, cosine)
                while _hides_own(others, near, k, own):
                    k = min(4 * k, MOST_NEIGHBORS)
                    others, near = _compare(search(row[None], k)[0], row, cosine)
                yield name, others, near
            advance(len(part))


def _compare(found: pa.Table, vector: np.ndarray, cosine: float) -> tuple[list[str], np.ndarray]:
    """Return the ids of what was found, and which are near a vector."""
    near = _unit(vectors_of(found.column("vector"))) @ vector >= cosine
    return found.column("id").to_pylist(), near


def _hides_own(others: list[str], near: np.ndarray, k: int, own: Container[str]) -> bool:
    """Return whether near clips of other stores may have kept the store's own out of the k."""
    if len(others) < k or k == MOST_NEIGHBORS or not near.all():
        return False
    return sum(other in own for other in others) < NEIGHBORS


def _unit(vectors: np.ndarray) -> np.ndarray:
    """Return float32 vectors of unit norm: float16 rounds norms, too."""
    vectors = vectors.astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
