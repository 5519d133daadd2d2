"""The contrastive Brain: wires towers, loss and optimizer; the maths lives in ``nnet``."""

from __future__ import annotations

import math
from contextlib import ExitStack
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.logger import get_logger
from torch import Tensor

from speechbrain_clsp.dataio.dataset import CaptionedSpeech
from speechbrain_clsp.dataio.sampler import BucketBatchSampler
from speechbrain_clsp.evaluation.retrieval.metrics import retrieval_metrics
from speechbrain_clsp.lobes.zipformer.schedule import set_step
from speechbrain_clsp.nnet.gradcache import GradCache
from speechbrain_clsp.nnet.losses import contrastive_loss, hard_negative_loss
from speechbrain_clsp.training.step_log import chance
from speechbrain_clsp.utils.distributed import (
    all_gather_scalars,
    gather_embeddings,
    rank_and_world_size,
)

logger = get_logger(__name__)


class ContrastiveBrain(sb.Brain):
    """Trains a speech tower and a text tower on clips with K texts each, positives and negatives.

    ``modules`` holds ``speech_tower``, ``text_tower`` and ``temperature``, and possibly
    ``attribute_heads``. Of ``hparams`` it needs

    - ``temperature``, the bare module;
    - ``lr_schedule``, see :class:`~speechbrain_clsp.nnet.schedulers.Eden`;
    - ``epoch_counter``, ``train_loggers`` (a list) and ``ckpt_metric``, the dev figure that picks
      the best epoch;

    and it knows

    - ``seed``: random numbers are a function of it, the step and the rank, so that a resumed
      training draws those of an uninterrupted one;
    - ``text_weight``, ``attribute_weight``, ``hard_negative_weight``: of the losses beside the
      contrastive one;
    - ``encoder_lr``: learning rate of the encoders, where it is not that of the heads;
    - ``loss_tile``: rows of the similarity matrix that are held at a time;
    - ``max_unreadable_clips``: training stops if more could not be read (100);
    - ``mask_duplicate_captions``: captions of other clips that read like a clip's own are no
      negatives;
    - ``gradcache_chunk_seconds``: padded audio that is encoded at a time; the batch may then be as
      large as its embeddings allow, at the price of encoding it twice;
    - ``model_average``, see :class:`~speechbrain_clsp.nnet.averaging.ModelAverage`: validation,
      test and export then use the average;
    - ``schedule_step``: step at which the schedules of dropout and the like start
      (:mod:`~speechbrain_clsp.lobes.zipformer.schedule`); by default they stay at their last
      values;
    - ``step_log``, see :class:`~speechbrain_clsp.training.step_log.StepLog`.

    Validation and test sets give two texts per clip, a global and a fine one
    (:func:`~speechbrain_clsp.captions.policies.evaluation_captions`).
    """

    n_unreadable = 0
    test_stats: dict[str, float] = {}

    def option(self, name: str, default: Any = None) -> Any:
        """Return an entry of ``hparams`` that may be missing."""
        return getattr(self.hparams, name, default)

    def compute_forward(self, batch: CaptionedSpeech, stage: sb.Stage) -> dict[str, Tensor]:
        """Return ``speech`` [B, D], ``text`` [K, B, D] and ``logit_scale`` [1]."""
        speech, text = self._encode(batch)
        return {"speech": speech, "text": text, "logit_scale": self.modules.temperature()}

    def _encode(self, batch: CaptionedSpeech) -> tuple[Tensor, Tensor]:
        batch = batch.to(self.device)
        speech = self.modules.speech_tower(batch.wavs, batch.lengths)
        text = self.modules.text_tower(batch.tokens, batch.mask)
        return speech, text.view(-1, len(speech), text.shape[-1])

    def compute_objectives(
        self, predictions: dict[str, Tensor], batch: CaptionedSpeech, stage: sb.Stage
    ) -> Tensor:
        """Return the contrastive loss; while training, over the negatives of all ranks.

        To it ``text_weight`` times the same loss between a clip's first text and its others is
        added: paraphrases teach the text tower which words matter long before speech does. So are,
        with their weights, the classification of labeled attributes, and the choice between a
        clip's first text and its negatives, if the batch holds any. A negative that repeats one of
        the clip's positives adds nothing.
        """
        speech = predictions["speech"]
        text, negatives = predictions["text"].tensor_split([batch.n_positives])
        scale = predictions["logit_scale"]
        if stage != sb.Stage.TRAIN:
            # Every rank sees all of these sets: gathered, each clip would be its own negative.
            self.embeddings["speech"].append(speech.float().cpu())
            self.embeddings["text"].append(text.float().cpu())
            return contrastive_loss(speech, text, scale)
        loss = self._contrastive(speech, text, scale, batch)
        if "attribute_heads" in self.modules:
            heads = self.modules.attribute_heads(speech, batch.labels.to(self.device))
            loss = loss + self.hparams.attribute_weight * heads
        all_differ = batch.negatives_differ().to(self.device)
        for negative, differs in zip(negatives, all_differ, strict=True):
            weight = self.hparams.hard_negative_weight / len(negatives)
            hard = hard_negative_loss(speech, text[0], negative, scale, differs)
            loss = loss + weight * hard
        return loss

    def _contrastive(
        self, speech: Tensor, text: Tensor, scale: Tensor, batch: CaptionedSpeech
    ) -> Tensor:
        """Return the losses in which the clips of all ranks are negatives."""
        counts = self.clip_counts
        all_speech, all_text = gather_embeddings(speech, counts), gather_embeddings(text, counts)
        options = {
            "tile": self.option("loss_tile"),
            "offset": sum(counts[: rank_and_world_size()[0]]),
        }
        ids = all_ids = other_ids = all_other_ids = None
        if self.option("mask_duplicate_captions", False):
            ids = batch.caption_ids[: len(text)].to(self.device)
            all_ids = gather_embeddings(ids[..., None], counts)[..., 0]
            other_ids, all_other_ids = ids[1:], all_ids[1:]
        loss = contrastive_loss(
            speech,
            text,
            scale,
            all_speech=all_speech,
            all_text=all_text,
            caption_ids=ids,
            all_caption_ids=all_ids,
            **options,
        )
        if self.option("text_weight", 0) > 0 and len(text) > 1:
            loss = loss + self.hparams.text_weight * contrastive_loss(
                text[0],
                text[1:],
                scale,
                all_speech=all_text[0],
                all_text=all_text[1:],
                caption_ids=other_ids,
                all_caption_ids=all_other_ids,
                **options,
            )
        return loss

    def fit_batch(self, batch: CaptionedSpeech) -> Tensor:
        """Do one step on which all ranks agree.

        All of them leave a batch out in which one rank has no clip, or a loss that is not finite.

        Returns
        -------
        Tensor
            0-dim, the loss of the joined batch; NaN for a batch that was left out.
        """
        should_step = self.step % self.grad_accumulation_factor == 0
        self._seed_step()
        self.on_fit_batch_start(batch, should_step)
        if not self._count_clips(batch):
            return self._leave_out("A process has no clip in this batch")
        cache = None
        if self.option("gradcache_chunk_seconds") is not None:
            cache = GradCache(self._encode_in_context, self.no_sync)
            cache.encode(batch.split(self.hparams.gradcache_chunk_seconds))
        with self.no_sync(not should_step):
            with self.training_ctx:
                outputs = self._cached_outputs(cache) if cache else self._outputs(batch)
                loss = self.compute_objectives(outputs, batch, sb.Stage.TRAIN)
            joined = self._joined_loss(loss)
            if not math.isfinite(joined):
                return self._leave_out("The loss is not finite")
            # DDP takes the mean over ranks, which may differ in their number of clips.
            weight = len(batch.ids) * len(self.clip_counts) / sum(self.clip_counts)
            self.scaler.scale(loss * weight / self.grad_accumulation_factor).backward()
        if cache is not None:
            cache.backward(synchronize=should_step)
        if should_step:
            self.optimizers_step()
        self.on_fit_batch_end(batch, outputs, loss, should_step)
        return torch.tensor(joined)

    def _outputs(self, batch: CaptionedSpeech) -> dict[str, Tensor]:
        return self.compute_forward(batch, sb.Stage.TRAIN)

    def _cached_outputs(self, cache: GradCache) -> dict[str, Tensor]:
        speech, text = cache.leaves
        return {"speech": speech, "text": text, "logit_scale": self.modules.temperature()}

    def _encode_in_context(self, batch: CaptionedSpeech) -> tuple[Tensor, Tensor]:
        # A context per call: autocast keeps casts of weights, and those of the first pass have no
        # gradients.
        with self.training_ctx:
            return self._encode(batch)

    def _seed_step(self) -> None:
        """Draw this step's random numbers from (seed, epoch, step, rank) alone."""
        place = (
            self.option("seed", 0),
            self.hparams.epoch_counter.current,
            self.step,
            rank_and_world_size()[0],
        )
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def _joined_loss(self, loss: Tensor) -> float:
        (losses,) = all_gather_scalars([loss.item()], self.device)
        return sum(n * x for n, x in zip(self.clip_counts, losses)) / sum(self.clip_counts)

    def _count_clips(self, batch: CaptionedSpeech) -> bool:
        """Learn how many clips each rank has, and stop all if too many could not be read."""
        for line in batch.unreadable:
            logger.warning("Clip skipped: %s", line, main_process_only=False)
        counts, unreadable = all_gather_scalars(
            [len(batch.ids), len(batch.unreadable)], self.device
        )
        self.clip_counts = [int(count) for count in counts]
        self.n_unreadable += int(sum(unreadable))
        limit = self.option("max_unreadable_clips", 100)
        if self.n_unreadable > limit:
            raise RuntimeError(
                f"{self.n_unreadable} clips could not be read, the last ones: {batch.unreadable}."
                f" max_unreadable_clips is {limit}; all of them are in log.txt"
            )
        return min(self.clip_counts) > 0

    def _leave_out(self, why: str) -> Tensor:
        """Forget a batch, and stop if there have been too many such batches in this epoch."""
        self.zero_grad(set_to_none=True)
        self.nonfinite_count += 1
        message = f"{why}: left out, number {self.nonfinite_count} in this epoch"
        if self.nonfinite_count > self.nonfinite_patience:
            raise RuntimeError(
                f"{message}. --nonfinite_patience={self.nonfinite_patience} allows no more: lower"
                " the learning rate, or look at the step log for where it went wrong"
            )
        logger.warning(message)
        return torch.tensor(math.nan)

    def init_optimizers(self) -> None:
        """Make the parameter groups: heads, encoders, and the temperature without decay."""
        heads, encoders, temperature = [], [], []
        for name, parameter in self.modules.named_parameters():
            if parameter.requires_grad:
                is_encoder = name.startswith(("speech_tower.", "text_tower.")) and (
                    ".head." not in name
                )
                group = temperature if name.startswith("temperature.") else heads
                (encoders if is_encoder else group).append(parameter)
        encoder_lr = self.option("encoder_lr")
        if encoder_lr is None:
            groups = [{"params": encoders + heads}]
        else:
            groups = [{"params": heads}, {"params": encoders, "lr": encoder_lr}]
        self.optimizer = self.opt_class([*groups, {"params": temperature, "weight_decay": 0.0}])
        self.optimizers_dict = {"optimizer": self.optimizer}
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable("optimizer", self.optimizer)

    def optimizers_step(self) -> None:
        """Step, with ``max_grad_norm`` over all groups; a value of 0 or less means no clipping.

        SpeechBrain clips its first group only, and turns the gradient around for negative values.
        A step whose gradients are not finite is not taken.
        """
        self.scaler.unscale_(self.optimizer)
        self.gradient_norms = self._gradient_norms()
        norm = math.hypot(*self.gradient_norms.values())
        if not math.isfinite(norm) and not self.scaler.is_enabled():
            self._leave_out("Gradients are not finite")
            return
        if 0 < self.max_grad_norm < norm:
            gradients = [p.grad for p in self.modules.parameters() if p.grad is not None]
            torch._foreach_mul_(gradients, self.max_grad_norm / norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.zero_grad(set_to_none=True)
        self.optimizer_step += 1
        self.hparams.temperature.clamp()
        if self.option("model_average") is not None:
            self.hparams.model_average.update(self.optimizer_step)

    @torch.no_grad()
    def _gradient_norms(self) -> dict[str, float]:
        """Return the norm of the gradients of each module."""
        norms = {}
        for name, module in self.modules.items():
            gradients = [p.grad for p in module.parameters() if p.grad is not None]
            if gradients:
                norms[name] = torch.stack(torch._foreach_norm(gradients)).norm()
        return dict(zip(norms, torch.stack(list(norms.values())).tolist()))

    def on_fit_batch_start(self, batch: CaptionedSpeech, should_step: bool) -> None:
        """Set the learning rate of the coming step, and where its schedules are."""
        if self.option("schedule_step") is not None:
            set_step(self.modules, self.hparams.schedule_step + self.optimizer_step)
        if should_step:
            epoch = self.hparams.epoch_counter.current - 1
            self.hparams.lr_schedule.set_rate(self.optimizer, self.optimizer_step, epoch)

    def on_fit_batch_end(self, batch, outputs, loss: Tensor, should_step: bool) -> None:
        """Note what a model that knows nothing would lose; write to the step log, if any."""
        self.chances.append(chance(sum(self.clip_counts), batch.n_positives))
        log = self.option("step_log")
        if log is not None and should_step:
            log.update(self, batch, outputs, loss)

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Forget the embeddings of the last stage; outside of training, use averaged weights."""
        self.embeddings: dict[str, list[Tensor]] = {"speech": [], "text": []}
        self.chances: list[float] = []
        self.averaged = ExitStack()
        if stage != sb.Stage.TRAIN and self.option("model_average") is not None:
            self.averaged.enter_context(self.hparams.model_average.applied())

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Compute retrieval figures, log them, and keep the best and the last checkpoint."""
        self.averaged.close()  # checkpoints hold the weights that training goes on with
        if stage == sb.Stage.TRAIN:
            self.train_stats = {"loss": float(stage_loss), "chance": float(np.mean(self.chances))}
            if self.option("step_log") is not None:
                self.hparams.step_log.pause()
            return
        stats = {"loss": float(stage_loss), **self._retrieval()}
        if stage == sb.Stage.TEST:
            self.test_stats = stats
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
        """Leave our sampler as it is, which splits its batches over the ranks; save its count."""
        self.train_sampler = loader_kwargs["batch_sampler"]
        if self.checkpointer is not None and isinstance(self.train_sampler, BucketBatchSampler):
            # Optional: without the lengths of earlier epochs, the sampler plans them again.
            self.checkpointer.add_recoverable("sampler", self.train_sampler, optional_load=True)
        return loader_kwargs
