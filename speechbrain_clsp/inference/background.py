"""From a manifest to the clips that scores are compared with."""

from __future__ import annotations

import torch
from torch import Tensor

from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.inference.files import embed_rows, spread_rows

BACKGROUND_CLIPS = 512


def embed_background(clsp: CLSP, manifest: Manifest, most: int = BACKGROUND_CLIPS) -> Tensor:
    """Embed some of a manifest's clips, spread over it, for :meth:`CLSP.set_background`.

    Arguments
    ---------
    clsp : CLSP
        The model.
    manifest : Manifest
        Clips of all kinds.
    most : int
        How many are taken.

    Returns
    -------
    Tensor
        [M, D] float32 on the CPU; clips that cannot be read are left out, with a warning.

    Raises
    ------
    FileNotFoundError, AudioError
        If none can be read.

    Example
    -------
    >>> clsp.set_background(embed_background(clsp, Manifest("valid.arrow")))  # doctest: +SKIP
    """
    found = embed_rows(clsp, spread_rows(manifest, most))
    return torch.stack([found[number] for number in sorted(found)])
