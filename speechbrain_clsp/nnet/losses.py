"""The InfoNCE family: one or several positive texts per clip, and hard negatives.

Embeddings have unit norm. ``logit_scale`` is the factor itself, already exponentiated.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from speechbrain_clsp.nnet.masking import full_precision
from speechbrain_clsp.nnet.tiles import row_cross_entropy


def contrastive_loss(
    speech: Tensor,
    text: Tensor,
    logit_scale: Tensor,
    tile: int | None = None,
    *,
    all_speech: Tensor | None = None,
    all_text: Tensor | None = None,
    offset: int = 0,
    caption_ids: Tensor | None = None,
    all_caption_ids: Tensor | None = None,
) -> Tensor:
    """Symmetric InfoNCE with K positive texts per clip (CLSP, arXiv 2601.03065).

    From speech, the target is 1/K on each of the clip's own texts; from text it is the one clip.
    The two directions are averaged. With several processes each gives its own rows and everyone's
    columns: the mean of the ranks' losses, weighted by their clips, is the loss of the joined
    batch.

    Arguments
    ---------
    speech : Tensor
        [B, D] embeddings of this process's clips.
    text : Tensor
        [K, B, D] embeddings of their texts.
    logit_scale : Tensor
        [1] or 0-dim.
    tile : int, optional
        Work on so many rows of the similarity matrix at a time, which is then never held as a
        whole: memory grows with B instead of B squared. Gradients are the same, except that they
        cannot be differentiated again. Default: all rows at once.
    all_speech : Tensor, optional
        [N, D], the clips of all processes in the order of ranks; default: ``speech``.
    all_text : Tensor, optional
        [K, N, D], their texts; default: ``text``.
    offset : int
        Where this process's clips start in that order.
    caption_ids : Tensor, optional
        [K, B] int64, equal where captions are equal. Another clip's text that reads like one of
        the clip's own is then no negative. Default: every other clip's text is one.
    all_caption_ids : Tensor, optional
        [K, N], those of all processes; default: ``caption_ids``.

    Returns
    -------
    Tensor
        0-dim float32 (float64 for float64 embeddings); 0 for a process without clips.

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
    if all_text.shape != (len(text), *all_speech.shape) or offset + len(speech) > len(all_speech):
        raise ValueError(
            f"{len(speech)} clips at offset {offset} with {len(text)} texts do not fit"
            f" all_speech {list(all_speech.shape)} and all_text {list(all_text.shape)}"
        )
    n_texts, n_clips = text.shape[:2]
    own = torch.arange(n_clips, device=speech.device) + offset
    own_texts = own[:, None] + torch.arange(n_texts, device=speech.device) * len(all_speech)
    ids_of_speech = ids_of_text = None
    if caption_ids is not None:
        all_ids = caption_ids if all_caption_ids is None else all_caption_ids
        ids_of_speech = (caption_ids.T, all_ids.flatten()[:, None])
        ids_of_text = (caption_ids.flatten()[:, None], all_ids.T)
    with torch.autocast(device_type=speech.device.type, enabled=False):
        speech, text, all_speech, all_text, scale = map(
            full_precision, (speech, text, all_speech, all_text, logit_scale)
        )
        from_speech = row_cross_entropy(
            speech, all_text.flatten(0, 1), scale, own_texts, tile, ids_of_speech
        )
        from_text = row_cross_entropy(
            text.flatten(0, 1), all_speech, scale, own.repeat(n_texts)[:, None], tile, ids_of_text
        )
        return (from_speech + from_text) / 2


def hard_negative_loss(
    speech: Tensor,
    positive: Tensor,
    negative: Tensor,
    logit_scale: Tensor,
    differs: Tensor | None = None,
) -> Tensor:
    """Two-way choice between a clip's caption and the same caption with one attribute swapped.

    Arguments
    ---------
    speech, positive, negative : Tensor
        [B, D] each.
    logit_scale : Tensor
        [1] or 0-dim.
    differs : Tensor, optional
        [B] bool, False where no attribute could be swapped, which then adds nothing. Default: all
        differ.

    Returns
    -------
    Tensor
        0-dim float32 (float64 for float64 embeddings), the mean over all B clips.

    Example
    -------
    >>> one = torch.tensor([[1.0, 0.0]])
    >>> round(hard_negative_loss(one, one, one, torch.tensor(10.0)).item(), 4)  # a coin toss: ln 2
    0.6931
    """
    with torch.autocast(device_type=speech.device.type, enabled=False):
        speech, positive, negative, scale = map(
            full_precision, (speech, positive, negative, logit_scale)
        )
        choices = torch.stack([positive, negative], dim=1)  # [B, 2, D]
        logits = scale * torch.einsum("bd,bcd->bc", speech, choices)
        first = torch.zeros_like(logits[:, 0], dtype=torch.long)
        if differs is None:
            return cross_entropy(logits, first)
        return (cross_entropy(logits, first, reduction="none") * differs).mean()


def prompt_loss(
    speech: Tensor,
    prompts: Tensor,
    n_values: Sequence[int],
    labels: Tensor,
    logit_scale: Tensor,
) -> Tensor:
    """Return the cross-entropy of classifying clips by their cosines with prompts.

    Arguments
    ---------
    speech : Tensor
        [B, D] of unit norm.
    prompts : Tensor
        [N, D] of unit norm, one for each value of the attributes, one attribute after the other.
    n_values : sequence of int
        How many of them belong to each of the A attributes; 0 for one that is left out.
    labels : Tensor
        [B, A] int64, classes; -1 where a clip has none, which then adds nothing.
    logit_scale : Tensor
        [1] or 0-dim, the factor on cosines.

    Returns
    -------
    Tensor
        0-dim, the sum over attributes, averaged over all clips: the mean of equal batches' losses
        is the loss of the joined batch.

    Example
    -------
    >>> prompts = torch.eye(2)
    >>> loss = prompt_loss(prompts, prompts, [2], torch.tensor([[0], [-1]]), torch.tensor(0.0))
    >>> round(loss.item(), 4)  # ln(2) / 2
    0.3466
    """
    with torch.autocast(device_type=speech.device.type, enabled=False):
        speech, prompts, scale = map(full_precision, (speech, prompts, logit_scale))
        logits = (scale * (speech @ prompts.T)).double()
    losses = [
        cross_entropy(of_attribute, classes, ignore_index=-1, reduction="sum")
        for of_attribute, classes in zip(logits.split(list(n_values), dim=1), labels.unbind(1))
        if of_attribute.shape[1]
    ]
    return (sum(losses, logits.new_zeros(())) / len(speech)).to(speech.dtype)


def distillation_loss(
    speech: Tensor, text: Tensor, base_speech: Tensor, base_text: Tensor
) -> Tensor:
    """Return how far embeddings are from those of a base model: 1 minus the cosine.

    Arguments
    ---------
    speech : Tensor
        [B, D] of unit norm.
    text : Tensor
        [K, B, D] of unit norm.
    base_speech, base_text : Tensor
        The same of the base model.

    Returns
    -------
    Tensor
        0-dim, the mean over clips plus the mean over texts.

    Example
    -------
    >>> eye = torch.eye(2)
    >>> distillation_loss(eye, eye[None], eye, eye.flip(0)[None]).item()
    1.0
    """
    speech, text, base_speech, base_text = map(
        full_precision, (speech, text, base_speech, base_text)
    )
    of_speech = 1 - (speech * base_speech).sum(dim=-1)
    of_text = 1 - (text * base_text).sum(dim=-1)
    return of_speech.mean() + of_text.mean()
