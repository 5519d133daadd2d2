"""The training loss of CLSP: contrastive terms over all processes, hard negatives, attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

from torch import Tensor, nn

from speechbrain_clsp.nnet.losses import contrastive_loss, hard_negative_loss
from speechbrain_clsp.utils.distributed import gather_embeddings, rank_and_world_size


class CLSPLoss(nn.Module):
    """The contrastive loss of CLSP (arXiv 2601.03065) and the weighted terms beside it.

    loss = contrastive(speech, positives) + ``text_weight`` * contrastive(first positive, others)
    + ``hard_negative_weight`` * mean over negatives of the two-way choice between the negative and
    the positive that it was made from + ``attribute_weight`` * the attribute heads' loss on speech
    + ``caption_attribute_weight`` * their loss on captions + ``prompt_weight`` * the loss of
    classifying clips by prompts + ``distillation_weight`` * the distance of rehearsed clips and
    captions from where the base model has them.

    The term between a clip's own positives is not part of the published recipe: paraphrases teach
    the text tower which words matter long before speech does.

    Arguments
    ---------
    text_weight : float
        Weight of the contrastive loss between a clip's first positive and its other ones.
    hard_negative_weight : float
        Weight of the choice between positives and negatives. Published: 0.2.
    attribute_weight : float
        Weight of the attribute heads' loss on speech.
    caption_attribute_weight : float
        Weight of the same heads' loss on the captions' own embeddings.
    prompt_weight : float
        Weight of :func:`~speechbrain_clsp.nnet.losses.prompt_loss`.
    distillation_weight : float
        Weight of the distance of old embeddings from those of the base model (feature distillation,
        as in learning without forgetting, arXiv 1606.09282): 1 minus the cosine.
    mask_duplicates : bool
        Whether captions of other clips that equal one of a clip's own are no negatives.
    tile : int, optional
        Rows of the similarity matrix that are held at a time; default: all.

    Example
    -------
    >>> import torch
    >>> eye = torch.eye(4)
    >>> loss = CLSPLoss(text_weight=0.5)
    >>> ids = torch.arange(8).view(2, 4)
    >>> round(loss(eye, torch.stack([eye, eye]), torch.tensor(100.0), ids).item(), 4)  # ln(2) / 2
    0.3466
    """

    def __init__(
        self,
        text_weight: float = 0.0,
        hard_negative_weight: float = 0.0,
        attribute_weight: float = 0.0,
        caption_attribute_weight: float = 0.0,
        prompt_weight: float = 0.0,
        distillation_weight: float = 0.0,
        mask_duplicates: bool = False,
        tile: int | None = None,
    ) -> None:
        super().__init__()
        self.text_weight = text_weight
        self.hard_negative_weight = hard_negative_weight
        self.attribute_weight = attribute_weight
        self.caption_attribute_weight = caption_attribute_weight
        self.prompt_weight = prompt_weight
        self.distillation_weight = distillation_weight
        self.mask_duplicates = mask_duplicates
        self.tile = tile

    def forward(
        self,
        speech: Tensor,
        positives: Tensor,
        logit_scale: Tensor,
        caption_ids: Tensor,
        negatives: Tensor | None = None,
        negatives_differ: Tensor | None = None,
        clip_counts: Sequence[int] | None = None,
        terms: Mapping[str, Tensor] | None = None,
    ) -> Tensor:
        """Compute this process's part of the loss of the joined batch.

        Arguments
        ---------
        speech : Tensor
            [B, D] of unit norm.
        positives : Tensor
            [P, B, D], captions that are true of the clips.
        logit_scale : Tensor
            [1] or 0-dim, the factor on cosines.
        caption_ids : Tensor
            [P, B] int64 on the same device, equal where captions are equal.
        negatives : Tensor, optional
            [Q, B, D], captions that are false; number q belongs to positive number q modulo P.
        negatives_differ : Tensor, optional
            [Q, B] bool, False for a negative that repeats a positive and then adds nothing;
            needed with ``negatives``.
        clip_counts : sequence of int, optional
            B of every process, in the order of ranks: their clips are negatives too. Default: this
            process is alone.
        terms : dict of Tensor, optional
            0-dim losses that are added by their weights: ``attribute`` and ``caption_attribute``,
            what the heads returned of clips and of captions, ``prompt`` and ``distillation``.

        Returns
        -------
        Tensor
            0-dim float32 (float64 for float64 embeddings). The mean over processes, weighted by
            their clips, is the loss of the joined batch; so are its gradients.
        """
        loss = self._contrastive(speech, positives, logit_scale, caption_ids, clip_counts)
        weights = {
            "attribute": self.attribute_weight,
            "caption_attribute": self.caption_attribute_weight,
            "prompt": self.prompt_weight,
            "distillation": self.distillation_weight,
        }
        for name, term in (terms or {}).items():
            loss = loss + weights[name] * term
        if negatives is not None and negatives_differ is not None:
            weight = self.hard_negative_weight / max(len(negatives), 1)
            of_positives = cycle(positives)
            for negative, differs, positive in zip(negatives, negatives_differ, of_positives):
                hard = hard_negative_loss(speech, positive, negative, logit_scale, differs)
                loss = loss + weight * hard
        return loss

    def _contrastive(
        self,
        speech: Tensor,
        positives: Tensor,
        logit_scale: Tensor,
        caption_ids: Tensor,
        clip_counts: Sequence[int] | None,
    ) -> Tensor:
        """Return the terms in which the clips of all processes are negatives."""
        counts = [len(speech)] if clip_counts is None else clip_counts
        offset = sum(counts[: rank_and_world_size()[0]])

        def everyones(x: Tensor) -> Tensor:
            return x if clip_counts is None else gather_embeddings(x, counts)

        all_speech, all_positives = everyones(speech), everyones(positives)
        ids = all_ids = other_ids = all_other_ids = None
        if self.mask_duplicates:
            ids, all_ids = caption_ids, everyones(caption_ids[..., None])[..., 0]
            other_ids, all_other_ids = ids[1:], all_ids[1:]
        loss = contrastive_loss(
            speech,
            positives,
            logit_scale,
            self.tile,
            all_speech=all_speech,
            all_text=all_positives,
            offset=offset,
            caption_ids=ids,
            all_caption_ids=all_ids,
        )
        if self.text_weight > 0 and len(positives) > 1:
            loss = loss + self.text_weight * contrastive_loss(
                positives[0],
                positives[1:],
                logit_scale,
                self.tile,
                all_speech=all_positives[0],
                all_text=all_positives[1:],
                offset=offset,
                caption_ids=other_ids,
                all_caption_ids=all_other_ids,
            )
        return loss
