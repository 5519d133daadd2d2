"""The contrastive Brain: wires towers, loss and optimizer; the maths lives in ``nnet``.

Authors
 * The speechbrain-clsp authors 2026
"""

from __future__ import annotations

import math
from typing import Any

import speechbrain as sb
import torch
from speechbrain.utils.distributed import main_process_only
from torch import Tensor

from speechbrain_clsp.dataio.captions import N_POSITIVES
from speechbrain_clsp.dataio.dataset import CaptionedSpeech
from speechbrain_clsp.evaluation.retrieval import retrieval_metrics
from speechbrain_clsp.nnet.gather import gather_embeddings, world
from speechbrain_clsp.nnet.losses import contrastive_loss, hard_negative_loss


class ContrastiveBrain(sb.Brain):
    """Trains a speech tower and a text tower on clips with K texts each.

    ``modules`` holds ``speech_tower``, ``text_tower`` and ``temperature``, and possibly
    ``attribute_heads``. Of ``hparams`` it reads ``temperature`` (the bare module),
    ``text_weight``, ``attribute_weight`` if there are such heads, ``hard_negative_weight`` if
    there are false texts, ``lr_schedule`` (see :class:`~speechbrain_clsp.nnet.schedulers.Eden`),
    ``epoch_counter``, ``train_loggers`` (a list) and ``ckpt_metric``, the dev figure that picks
    the best epoch. Validation and test sets give two texts per clip, a global and a fine one
    (:func:`~speechbrain_clsp.dataio.captions.evaluation_captions`).
    """

    def compute_forward(self, batch: CaptionedSpeech, stage: sb.Stage) -> dict[str, Tensor]:
        """Return ``speech`` [B, D], ``text`` [K, B, D] and ``logit_scale`` [1]."""
        batch = batch.to(self.device)
        speech = self.modules.speech_tower(batch.wavs, batch.lengths)
        text = self.modules.text_tower(batch.tokens, batch.mask)
        return {
            "speech": speech,
            "text": text.view(-1, len(speech), text.shape[-1]),
            "logit_scale": self.modules.temperature(),
        }

    def compute_objectives(
        self, predictions: dict[str, Tensor], batch: CaptionedSpeech, stage: sb.Stage
    ) -> Tensor:
        """Return the contrastive loss; while training, over the negatives of all ranks.

        To it ``text_weight`` times the same loss between a clip's first text and its others is
        added: paraphrases teach the text tower which words matter long before speech does. So are,
        with their weights, the classification of labelled attributes, and the choice between a
        clip's first text and false ones, if the batch holds any.
        """
        speech, text = predictions["speech"], predictions["text"]
        scale = predictions["logit_scale"]
        if stage != sb.Stage.TRAIN:
            # Every rank sees all of these sets: gathered, each clip would be its own negative.
            self.embeddings["speech"].append(speech.float().cpu())
            self.embeddings["text"].append(text.float().cpu())
            return contrastive_loss(speech, text, scale)
        text, negatives = text[:N_POSITIVES], text[N_POSITIVES:]
        all_speech, all_text, rank = gather_embeddings(speech), gather_embeddings(text), world()[0]
        loss = contrastive_loss(speech, text, scale, all_speech, all_text, rank)
        if self.hparams.text_weight > 0:
            loss = loss + self.hparams.text_weight * contrastive_loss(
                text[0], text[1:], scale, all_text[0], all_text[1:], rank
            )
        if "attribute_heads" in self.modules:
            heads = self.modules.attribute_heads(speech, batch.labels.to(self.device))
            loss = loss + self.hparams.attribute_weight * heads
        for negative in negatives:
            weight = self.hparams.hard_negative_weight / len(negatives)
            loss = loss + weight * hard_negative_loss(speech, text[0], negative, scale)
        return loss

    def init_optimizers(self) -> None:
        """Give the temperature a parameter group of its own, without weight decay."""
        temperature = list(self.modules.temperature.parameters())
        own = {id(p) for p in temperature}
        towers = [p for p in self.modules.parameters() if p.requires_grad and id(p) not in own]
        groups = [{"params": towers}, {"params": temperature, "weight_decay": 0.0}]
        self.optimizer = self.opt_class(groups)
        self.optimizers_dict = {"optimizer": self.optimizer}
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)

    def optimizers_step(self) -> None:
        """Step, with ``max_grad_norm`` over all groups; a value of 0 or less means no clipping.

        SpeechBrain clips its first group only, and turns the gradient around for negative values.
        """
        self.scaler.unscale_(self.optimizer)
        if self.max_grad_norm > 0:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.max_grad_norm)
        if not self.scaler.is_enabled() and self.skip_nonfinite_grads:
            self.check_gradients()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.zero_grad(set_to_none=True)
        self.optimizer_step += 1

    def on_fit_batch_start(self, batch: CaptionedSpeech, should_step: bool) -> None:
        """Set the learning rate of the coming step."""
        if should_step:
            epoch = self.hparams.epoch_counter.current - 1
            self.hparams.lr_schedule.set_rate(self.optimizer, self.optimizer_step, epoch)

    def on_fit_batch_end(self, batch, outputs, loss: Tensor, should_step: bool) -> None:
        """Keep the temperature within its bounds."""
        if should_step:
            self.hparams.temperature.clamp()

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Forget the embeddings of the last stage."""
        self.embeddings: dict[str, list[Tensor]] = {"speech": [], "text": []}

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Compute retrieval figures, log them, and keep the best and the last checkpoint."""
        if stage == sb.Stage.TRAIN:
            self.train_stats = {"loss": float(stage_loss)}
            return
        stats = {"loss": float(stage_loss), **self._retrieval()}
        if stage == sb.Stage.TEST:
            self._log({"Epoch loaded": self.hparams.epoch_counter.current}, test_stats=stats)
            return
        meta = {
            "epoch": epoch,
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "logit_scale": float(self.hparams.temperature().item()),
        }
        self._log(meta, train_stats=self.train_stats, valid_stats=stats)
        self.checkpointer.save_and_keep_only(
            meta={**stats, "epoch": epoch}, max_keys=[self.hparams.ckpt_metric], num_to_keep=1
        )

    def _log(self, meta: dict[str, float], **stats: dict[str, float]) -> None:
        for logger in self.hparams.train_loggers:
            logger.log_stats(meta, **stats)

    def _retrieval(self) -> dict[str, float]:
        """R@1 of both kinds of captions, both directions averaged, and the mean of the two."""
        speech = torch.cat(self.embeddings["speech"])
        text = torch.cat(self.embeddings["text"], dim=1)
        figures = {}
        for kind, captions in zip(("global", "fine"), text, strict=True):
            metrics = retrieval_metrics(speech, captions)
            directions = (metrics["speech_to_text_R@1"], metrics["text_to_speech_R@1"])
            figures[f"{kind}_R@1"] = sum(directions) / 2
        figures["mean_R@1"] = (figures["global_R@1"] + figures["fine_R@1"]) / 2
        return figures

    def _train_loader_specifics(self, dataset: Any, loader_kwargs: dict) -> dict:
        """Leave our sampler as it is: it already splits its batches over the ranks."""
        self.train_sampler = loader_kwargs["batch_sampler"]
        return loader_kwargs


@main_process_only
def log_chance(batch_size: int, n_texts: int, logger) -> None:
    """Log the loss of a model that knows nothing, the line to compare training curves with.

    Arguments
    ---------
    batch_size : int
        Clips per batch, over all ranks.
    n_texts : int
        Texts per clip.
    logger : logging.Logger
        Where the line goes.
    """
    chance = (math.log(n_texts * batch_size) + math.log(batch_size)) / 2
    logger.info("Loss at chance: %.3f", chance)
