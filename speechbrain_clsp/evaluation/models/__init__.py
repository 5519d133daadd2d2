"""Models that can be evaluated side by side, each fed as its authors require.

One module per kind, :mod:`base` for what they share, and :mod:`cache` so that nothing is embedded
twice.
"""

from __future__ import annotations

from speechbrain_clsp.evaluation.models.base import Model
from speechbrain_clsp.evaluation.models.bounds import (
    BagOfWordsModel,
    OracleModel,
    RandomModel,
    UntrainedModel,
)
from speechbrain_clsp.evaluation.models.cache import CachedModel
from speechbrain_clsp.evaluation.models.clap import ClapModel
from speechbrain_clsp.evaluation.models.clsp import ClspModel
from speechbrain_clsp.evaluation.models.dual_encoder import KNOWN, DualEncoderModel
from speechbrain_clsp.evaluation.models.precomputed import PrecomputedModel
from speechbrain_clsp.evaluation.models.voiceclap import VoiceClapModel
from speechbrain_clsp.utils.files import expand

__all__ = ["CachedModel", "ClspModel", "Model", "open_model"]


def open_model(spec: str, device: str = "cpu") -> Model:
    """Open a model by its specification.

    Arguments
    ---------
    spec : str
        ``folder`` or ``user/name`` for a CLSP of ours or in the published form;
        ``clap:folder-or-repository`` for a CLAP of transformers; ``paraspeechclap:...`` and
        ``paraclap:...``, see :mod:`~speechbrain_clsp.evaluation.models.dual_encoder`;
        ``voiceclap:...``, see :mod:`~speechbrain_clsp.evaluation.models.voiceclap`;
        ``file:embeddings.npz`` for embeddings that were computed elsewhere; as bounds ``random``,
        ``untrained:folder``, ``oracle:manifest.arrow`` and ``bag-of-words:manifest.arrow``. A
        repository may end in ``@revision``.
    device : str
        Where it runs.

    Returns
    -------
    Model
        See :class:`~speechbrain_clsp.evaluation.models.base.Model`.

    Example
    -------
    >>> open_model("random").encode_text(["A man."]).shape
    torch.Size([1, 512])
    """
    if spec == "random":
        return RandomModel()
    kind, _, source = spec.partition(":")
    if not source:  # also a folder that is called as a kind is
        return ClspModel.open(*_split_revision(spec), device)
    if kind == "file":
        return PrecomputedModel(source)
    if kind == "oracle":
        return OracleModel(source)
    if kind == "bag-of-words":
        return BagOfWordsModel(source)
    if kind == "untrained":
        return UntrainedModel(source, device)
    if kind == "clap":
        return ClapModel(*_split_revision(source), device)
    if kind == "voiceclap":
        return VoiceClapModel(*_split_revision(source), device)
    if kind in KNOWN:
        return DualEncoderModel(*_split_revision(source), KNOWN[kind], device)
    return ClspModel.open(*_split_revision(spec), device)


def _split_revision(source: str) -> tuple[str, str | None]:
    """Split ``user/name@revision``; a path that exists has no revision."""
    if expand(source).exists():
        return source, None
    name, _, revision = source.partition("@")
    return name, revision or None
