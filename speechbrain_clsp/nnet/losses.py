"""The InfoNCE family: one or several positive texts per clip, and hard negatives.

Embeddings have unit norm. ``logit_scale`` is the factor itself, already exponentiated.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy


def contrastive_loss(
    speech: Tensor,
    text: Tensor,
    logit_scale: Tensor,
    all_speech: Tensor | None = None,
    all_text: Tensor | None = None,
    rank: int = 0,
) -> Tensor:
    """Symmetric InfoNCE with K positive texts per clip (CLSP, arXiv 2601.03065).

    From speech, the target is 1/K on each of the clip's own texts; from text it is the one clip.
    The two directions are averaged. With several processes each gives its own rows and everyone's
    columns: the mean of the ranks' losses is then the loss of the joined batch.

    Arguments
    ---------
    speech : Tensor
        [B, D] embeddings of this process's clips.
    text : Tensor
        [K, B, D] embeddings of their texts.
    logit_scale : Tensor
        [1] or 0-dim.
    all_speech : Tensor, optional
        [W * B, D], the clips of all W processes in the order of ranks; default: ``speech``.
    all_text : Tensor, optional
        [K, W * B, D], their texts; default: ``text``.
    rank : int
        This process's place in that order.

    Returns
    -------
    Tensor
        0-dim float32 (float64 for float64 embeddings).

    Raises
    ------
    ValueError
        If the shapes do not fit together.

    Example
    -------
    >>> eye = torch.eye(4)
    >>> loss = contrastive_loss(eye, torch.stack([eye, eye]), torch.tensor(100.0))
    >>> round(loss.item(), 4)  # from speech: ln 2, since two texts are equally right
    0.3466
    """
    if text.dim() != 3 or text.shape[1:] != speech.shape:
        raise ValueError(
            f"text must be [K, B, D] for speech {list(speech.shape)}, not {list(text.shape)}"
        )
    all_speech = speech if all_speech is None else all_speech
    all_text = text if all_text is None else all_text
    n_texts, n_clips = len(text), len(speech)
    with torch.autocast(device_type=speech.device.type, enabled=False):
        speech, text, all_speech, all_text, scale = _at_least_float32(
            speech, text, all_speech, all_text, logit_scale
        )
        own = torch.arange(n_clips, device=speech.device) + rank * n_clips
        from_speech = scale * speech @ all_text.flatten(0, 1).T  # [B, K * W * B]
        log_probability = from_speech.log_softmax(dim=1).view(n_clips, n_texts, -1)
        positives = log_probability.gather(2, own[:, None, None].expand(-1, n_texts, 1))
        from_text = scale * text.flatten(0, 1) @ all_speech.T  # [K * B, W * B]
        return (cross_entropy(from_text, own.repeat(n_texts)) - positives.mean()) / 2


def hard_negative_loss(
    speech: Tensor, positive: Tensor, negative: Tensor, logit_scale: Tensor
) -> Tensor:
    """Two-way choice between a clip's caption and the same caption with one attribute swapped.

    Arguments
    ---------
    speech, positive, negative : Tensor
        [B, D] each.
    logit_scale : Tensor
        [1] or 0-dim.

    Returns
    -------
    Tensor
        0-dim float32 (float64 for float64 embeddings).

    Example
    -------
    >>> one = torch.tensor([[1.0, 0.0]])
    >>> round(hard_negative_loss(one, one, one, torch.tensor(10.0)).item(), 4)  # a coin toss: ln 2
    0.6931
    """
    with torch.autocast(device_type=speech.device.type, enabled=False):
        speech, positive, negative, scale = _at_least_float32(
            speech, positive, negative, logit_scale
        )
        choices = torch.stack([positive, negative], dim=1)  # [B, 2, D]
        logits = scale * torch.einsum("bd,bcd->bc", speech, choices)
        return cross_entropy(logits, torch.zeros_like(logits[:, 0], dtype=torch.long))


def _at_least_float32(*tensors: Tensor) -> list[Tensor]:
    return [x if x.dtype == torch.float64 else x.float() for x in tensors]
