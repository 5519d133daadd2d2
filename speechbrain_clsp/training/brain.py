"""The contrastive Brain: wires towers, loss and optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import speechbrain as sb
import torch
from speechbrain.utils.logger import get_logger
from torch import Tensor, nn

from speechbrain_clsp.dataio.dataset import CaptionedSpeech
from speechbrain_clsp.dataio.sampler import BucketBatchSampler
from speechbrain_clsp.evaluation.retrieval.metrics import caption_pairs, retrieval_metrics
from speechbrain_clsp.evaluation.zero_shot import Task, average_recall, classify
from speechbrain_clsp.lobes.zipformer.schedule import set_step
from speechbrain_clsp.nnet.averaging import ModelAverage
from speechbrain_clsp.nnet.gradcache import GradCache
from speechbrain_clsp.nnet.losses import contrastive_loss, distillation_loss, prompt_loss
from speechbrain_clsp.nnet.schedulers import Eden
from speechbrain_clsp.training.loss import CLSPLoss
from speechbrain_clsp.training.step_log import StepLog, chance_level_loss
from speechbrain_clsp.utils.distributed import all_gather_scalars, rank_and_world_size

logger = get_logger(__name__)
MAX_EMBEDDED_CLIPS = 1_000_000  # by a frozen tower: 2 GB of 512 numbers each


class TrainingError(RuntimeError, ValueError):
    """What the data or settings of a training make of it: too many clips or batches left out."""


class ContrastiveBrain(sb.Brain):
    """Trains a speech tower and a text tower on clips with K texts each.

    Validation and test sets give a global and a fine caption per clip
    (:func:`~speechbrain_clsp.captions.policies.evaluation_captions`), and perhaps negatives.

    Arguments
    ---------
    modules, opt_class, hparams, run_opts, checkpointer
        As of SpeechBrain's Brain. ``modules`` holds ``speech_tower``, ``text_tower`` and
        ``logit_scale``, and possibly ``attribute_heads``. Nothing of ``hparams`` is read here but
        what SpeechBrain itself reads, such as ``precision``.
    loss : CLSPLoss
        The training loss.
    lr_annealing : Eden
        The learning rate of each step.
    epoch_counter : speechbrain.utils.epoch_loop.EpochCounter
        Counts epochs; the same that ``fit`` gets.
    train_loggers : sequence
        SpeechBrain's train loggers.
    ckpt_metric : str
        The metric on the validation set that picks the best epoch.
    seed : int
        Random numbers are a function of it, the step and the rank, so that a resumed training
        draws those of an uninterrupted one.
    encoder_lr : float, optional
        Learning rate of the encoders; default: that of the heads.
    gradcache_chunk_seconds : float, optional
        Padded audio that is encoded at a time. The batch may then be as large as its embeddings
        allow, at the price of encoding it twice. Default: the whole batch at once.
    max_unreadable_clips : int
        Training stops if more clips could not be read.
    model_average : ModelAverage, optional
        Validation, test and export then use the averaged weights.
    schedule_step : int, optional
        Step at which the schedules of dropout and the like start
        (:mod:`~speechbrain_clsp.lobes.zipformer.schedule`). Default: they stay at their last
        values.
    step_log : StepLog, optional
        Gets a line every so many steps.
    contrasts : sequence of str
        Names of the negatives that validation and test sets give
        (:class:`~speechbrain_clsp.captions.policies.Contrasts`). For each the accuracy is logged
        with which the fine caption is nearer to the speech than its negative; chance is 0.5.
    tasks : sequence of Task
        What clips of validation and test sets are classified in by prompts; a batch's labels are
        their classes in these tasks.
    tokenizer : callable, optional
        Captions -> tokens and padding mask, for the prompts of ``tasks``.
    augmentation : callable, optional
        Waveforms [B, T] and relative lengths [B] -> the same of clips that sound a little
        different, such as SpeechBrain's Augmenter. Only for training; it draws from torch's global
        generator.

    Example
    -------
    >>> from speechbrain.utils.epoch_loop import EpochCounter
    >>> from speechbrain_clsp.nnet import LogitScale, ScaledAdam
    >>> towers = {"speech_tower": nn.Linear(8, 4), "text_tower": nn.Linear(8, 4)}
    >>> brain = ContrastiveBrain(
    ...     {**towers, "logit_scale": LogitScale()}, ScaledAdam, loss=CLSPLoss(),
    ...     lr_annealing=Eden(5000, 10), epoch_counter=EpochCounter(3))
    >>> brain.optimizer_step, brain.ckpt_metric
    (0, 'mean_R@1')
    """

    def __init__(
        self,
        modules: dict[str, nn.Module],
        opt_class: Any,
        hparams: dict[str, Any] | None = None,
        run_opts: dict[str, Any] | None = None,
        checkpointer: Any = None,
        *,
        loss: CLSPLoss,
        lr_annealing: Eden,
        epoch_counter: Any,
        train_loggers: Sequence[Any] = (),
        ckpt_metric: str = "mean_R@1",
        seed: int = 0,
        encoder_lr: float | None = None,
        gradcache_chunk_seconds: float | None = None,
        max_unreadable_clips: int = 100,
        model_average: ModelAverage | None = None,
        schedule_step: int | None = None,
        step_log: StepLog | None = None,
        contrasts: Sequence[str] = (),
        tasks: Sequence[Task] = (),
        tokenizer: Callable[[Sequence[str]], tuple[Tensor, Tensor]] | None = None,
        augmentation: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        super().__init__(modules, opt_class, hparams, run_opts, checkpointer)
        self.loss = loss
        self.lr_annealing = lr_annealing
        self.epoch_counter = epoch_counter
        self.train_loggers = train_loggers
        self.ckpt_metric = ckpt_metric
        self.seed = seed
        self.encoder_lr = encoder_lr
        self.gradcache_chunk_seconds = gradcache_chunk_seconds
        self.max_unreadable_clips = max_unreadable_clips
        self.model_average = model_average
        self.schedule_step = schedule_step
        self.step_log = step_log
        self.contrasts = contrasts
        if tasks and tokenizer is None:
            raise ValueError("The prompts of tasks need a tokenizer")
        self.tasks = tasks
        self.tokenizer = tokenizer
        self.augmentation = augmentation
        if model_average is not None:
            model_average.to(self.device)
        self.batches_per_epoch = math.inf  # until there is a loader
        self.n_unreadable = 0
        self.embedded_clips: dict[str, Tensor] = {}  # in training, by a frozen tower
        self.gradient_norms: dict[str, float] = {}
        self.train_stats: dict[str, float] = {}
        self.test_stats: dict[str, float] = {}
        self._forget_stage()

    def _forget_stage(self) -> None:
        self.embeddings: dict[str, list[Tensor]] = {"speech": [], "text": []}
        self.caption_ids: list[Tensor] = []
        self.labels: list[Tensor] = []
        self.hits: dict[str, list[Tensor]] = {}
        self.chance_levels: list[float] = []

    def compute_forward(self, batch: CaptionedSpeech, stage: sb.Stage) -> dict[str, Any]:
        """Return ``speech`` [B, D] and ``text`` [K, B, D]; with averaged weights outside training.

        GradCache calls this too, chunk by chunk.
        """
        batch = batch.to(self.device)
        modules = self.modules if stage == sb.Stage.TRAIN else self.evaluation_modules()
        _check_lengths(batch, unwrapped(self.modules["text_tower"]))
        speech = self._embed_speech(batch, modules["speech_tower"], stage)
        text = modules["text_tower"](batch.tokens, batch.padding_mask)
        return {"speech": speech, "text": text.view(-1, *speech.shape)}

    def _embed_speech(self, batch: CaptionedSpeech, tower: Any, stage: sb.Stage) -> Tensor:
        """Return [B, D]; a frozen tower, of which nothing is random either, sees each clip once."""
        is_frozen = not tower.training and not any(p.requires_grad for p in tower.parameters())
        if stage != sb.Stage.TRAIN or not is_frozen or self.augmentation is not None:
            return tower(batch.wavs, batch.wav_lens)
        if not all(clip in self.embedded_clips for clip in batch.ids):
            new = tower(batch.wavs, batch.wav_lens)
            if len(self.embedded_clips) + len(new) > MAX_EMBEDDED_CLIPS:
                return new
            self.embedded_clips.update(zip(batch.ids, new.cpu()))
        return torch.stack([self.embedded_clips[clip] for clip in batch.ids]).to(self.device)

    def compute_objectives(
        self, predictions: dict[str, Any], batch: CaptionedSpeech, stage: sb.Stage
    ) -> Tensor:
        """Return the loss; while training, with the clips of all ranks as negatives.

        Arguments
        ---------
        predictions : dict
            As of :meth:`compute_forward`; while training it may hold ``clip_counts``, the number of
            clips on every rank (default: this process is alone).
        batch : CaptionedSpeech
            The batch.
        stage : Stage
            Outside training the plain contrastive loss is returned.

        Returns
        -------
        Tensor
            0-dim.
        """
        speech = predictions["speech"]
        positives, negatives = predictions["text"].tensor_split([batch.n_positives])
        if stage != sb.Stage.TRAIN:
            # Every rank sees all of these sets: gathered, each clip would be its own negative.
            self.embeddings["speech"].append(speech.float().cpu())
            self.embeddings["text"].append(positives.float().cpu())
            self.caption_ids.append(batch.caption_ids[: batch.n_positives].cpu())
            self.labels.append(batch.labels.cpu())
            cosines = torch.einsum("bd,kbd->kb", speech, predictions["text"]).float().cpu()
            own, others = cosines[batch.n_positives - 1], cosines[batch.n_positives :]
            for name, other, differs in zip(self.contrasts, others, batch.negatives_differ().cpu()):
                self.hits.setdefault(name, []).append((own > other)[differs])
            return contrastive_loss(speech, positives, self.evaluation_modules()["logit_scale"]())
        return self.loss(
            speech,
            positives,
            self.modules["logit_scale"](),
            batch.caption_ids[: batch.n_positives].to(self.device),
            negatives,
            batch.negatives_differ().to(self.device),
            predictions.get("clip_counts"),
            self._terms(predictions, batch),
        )

    def _terms(self, predictions: Mapping[str, Any], batch: CaptionedSpeech) -> dict[str, Tensor]:
        """Return the terms of the loss that this training has beside the contrastive ones."""
        terms = {}
        speech, labels = predictions["speech"], batch.labels.to(self.device)
        if "attribute_heads" in self.modules:
            heads = self.modules["attribute_heads"]
            terms["attribute"] = heads(speech, labels)
            if self.loss.caption_attribute_weight:
                # A clip's last positive is a fine caption, if it has any.
                fine = predictions["text"][batch.n_positives - 1]
                terms["caption_attribute"] = heads(fine, labels)
        if batch.prompts is not None and batch.prompts_padding_mask is not None:
            tokens, mask = batch.prompts, batch.prompts_padding_mask
            prompts = self.modules["text_tower"](tokens.to(self.device), mask.to(self.device))
            scale = self.modules["logit_scale"]()
            terms["prompt"] = prompt_loss(speech, prompts, batch.n_values, labels, scale)
        if batch.n_old and self.loss.distillation_weight:
            terms["distillation"] = self._distillation_loss(predictions, batch)
        return terms

    def _distillation_loss(self, predictions: Mapping[str, Any], batch: CaptionedSpeech) -> Tensor:
        """Return how far old clips and texts are from where the base has them."""
        n_clips = len(batch.ids)
        old = batch.select(n_clips - batch.n_old, n_clips)
        towers: list[Any] = [
            unwrapped(self.modules[name]) for name in ("speech_tower", "text_tower")
        ]
        speech = towers[0].embed_as_before(old.wavs, old.wav_lens)
        text = towers[1].embed_as_before(old.tokens, old.padding_mask).view(-1, *speech.shape)
        tuned_speech, tuned_text = (
            predictions[name][..., -batch.n_old :, :] for name in ("speech", "text")
        )
        loss = distillation_loss(tuned_speech, tuned_text, speech, text)
        return loss * batch.n_old / n_clips

    def evaluation_modules(self) -> Mapping[str, nn.Module]:
        """Return the bare modules that are evaluated: the averaged ones, if there are any yet."""
        if self.model_average is not None and self.model_average.n_averaged > 0:
            return self.model_average.modules_by_name
        return {name: unwrapped(module) for name, module in self.modules.items()}

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
        counts = self._count_clips(batch)
        if min(counts) == 0:
            return self._leave_out(
                f"A process has no clip in this batch ({self.n_unreadable} could not be read)",
                "log.txt names the clips, correct the manifest or its paths",
            )
        if self.augmentation is not None:
            batch = self._augmented(batch, self.augmentation)
        cache = None
        if self.gradcache_chunk_seconds is not None:
            cache = GradCache(self._encode_chunk, self.no_sync)
            cache.encode(batch.split(self.gradcache_chunk_seconds))
        with self.no_sync(not should_step):
            with self.training_ctx:
                if cache is None:
                    outputs = self.compute_forward(batch, sb.Stage.TRAIN)
                else:
                    outputs = dict(zip(("speech", "text"), cache.leaves))
                outputs["clip_counts"] = counts
                loss = self.compute_objectives(outputs, batch, sb.Stage.TRAIN)
            (losses,) = all_gather_scalars([loss.item()], self.device)
            joined = sum(n * x for n, x in zip(counts, losses)) / sum(counts)
            if not math.isfinite(joined):
                return self._leave_out("The loss is not finite")
            # DDP takes the mean over ranks, which may differ in their number of clips.
            weight = len(batch.ids) * len(counts) / sum(counts)
            self.scaler.scale(loss * weight / self.grad_accumulation_factor).backward()
        if cache is not None:
            cache.backward(synchronize=should_step)
        if should_step:
            self.optimizers_step()
        self.on_fit_batch_end(batch, outputs, loss, should_step)
        return torch.tensor(joined)

    def _augmented(self, batch: CaptionedSpeech, augmentation: Callable) -> CaptionedSpeech:
        """Return a batch whose clips sound a little different, in both passes of GradCache."""
        batch = batch.to(self.device)
        with torch.no_grad():
            wavs, wav_lens = augmentation(batch.wavs, batch.wav_lens)
        return replace(batch, wavs=wavs, wav_lens=wav_lens)

    def _encode_chunk(self, batch: CaptionedSpeech) -> tuple[Tensor, Tensor]:
        # A context per call: autocast keeps casts of weights, and those of the first pass have no
        # gradients.
        with self.training_ctx:
            outputs = self.compute_forward(batch, sb.Stage.TRAIN)
        return outputs["speech"], outputs["text"]

    def _seed_step(self) -> None:
        """Draw this step's random numbers from (seed, epoch, step, rank) alone."""
        place = (self.seed, self.epoch_counter.current, self.step, rank_and_world_size()[0])
        torch.manual_seed(int(np.random.SeedSequence(place).generate_state(1)[0]))

    def _count_clips(self, batch: CaptionedSpeech) -> list[int]:
        """Return how many clips each rank has; stop all if too many could not be read."""
        for line in batch.unreadable:
            logger.warning("Clip skipped: %s", line, main_process_only=False)
        numbers = [len(batch.ids), len(batch.unreadable)]
        counts, unreadable = all_gather_scalars(numbers, self.device)
        self.n_unreadable += int(sum(unreadable))
        if self.n_unreadable > self.max_unreadable_clips:
            raise TrainingError(
                f"{self.n_unreadable} clips could not be read, the last ones: {batch.unreadable}."
                f" max_unreadable_clips is {self.max_unreadable_clips}; all of them are in log.txt"
            )
        return [int(count) for count in counts]

    def _leave_out(
        self,
        why: str,
        way_out: str = "lower the learning rate, or look at the step log for where it went wrong",
    ) -> Tensor:
        """Forget a batch, and stop if there have been too many such batches in this epoch."""
        self.zero_grad(set_to_none=True)
        self.nonfinite_count += 1
        message = f"{why}: left out, number {self.nonfinite_count} in this epoch"
        if self.nonfinite_count > self.nonfinite_patience:
            raise TrainingError(
                f"{message}. --nonfinite_patience={self.nonfinite_patience} allows no more:"
                f" {way_out}"
            )
        logger.warning(message)
        return torch.tensor(math.nan)

    def init_optimizers(self) -> None:
        """Make the parameter groups: heads, encoders, and the logit scale without decay."""
        towers: list[Any] = [
            unwrapped(self.modules[name]) for name in ("speech_tower", "text_tower")
        ]
        in_heads = {id(p) for tower in towers for p in tower.head.parameters()}
        in_towers = {id(p) for tower in towers for p in tower.parameters()}
        in_scale = {id(p) for p in self.modules["logit_scale"].parameters()}
        trainable = [p for p in self.modules.parameters() if p.requires_grad]
        encoders = [p for p in trainable if id(p) in in_towers - in_heads]
        heads = [p for p in trainable if id(p) not in (in_towers - in_heads) | in_scale]
        scale = [p for p in trainable if id(p) in in_scale]
        if self.encoder_lr is None:
            groups: list[dict[str, Any]] = [{"params": encoders + heads}]
        else:
            groups = [{"params": heads}, {"params": encoders, "lr": self.encoder_lr}]
        self.optimizer = self.opt_class([*groups, {"params": scale, "weight_decay": 0.0}])
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
        logit_scale: Any = unwrapped(self.modules["logit_scale"])
        logit_scale.clamp()
        if self.model_average is not None:
            self.model_average.update(self.optimizer_step)

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
        if self.schedule_step is not None:
            set_step(self.modules, self.schedule_step + self.optimizer_step)
        if should_step:
            epoch = self.epoch_counter.current - 1 + (self.step - 1) / self.batches_per_epoch
            self.lr_annealing(self.optimizer, self.optimizer_step, epoch)

    def on_fit_batch_end(
        self, batch: CaptionedSpeech, outputs: dict[str, Any], loss: Tensor, should_step: bool
    ) -> None:
        """Note the chance-level loss of the batch; write to the step log, if any."""
        n_clips = sum(outputs["clip_counts"])
        self.chance_levels.append(chance_level_loss(n_clips, batch.n_positives))
        if self.step_log is not None and should_step:
            self.step_log.update(
                batch,
                outputs["speech"].detach(),
                outputs["text"][0].detach(),
                step=self.optimizer_step,
                epoch=self.epoch_counter.current,
                loss=loss,
                chance=self.chance_levels[-1],
                clips=n_clips,
                logit_scale=unwrapped(self.modules["logit_scale"])(),
                lr=[group["lr"] for group in self.optimizer.param_groups],
                gradient_norms=self.gradient_norms,
            )

    def on_stage_start(self, stage: sb.Stage, epoch: int | None = None) -> None:
        """Forget the embeddings of the last stage."""
        self._forget_stage()

    def on_stage_end(self, stage: sb.Stage, stage_loss: float, epoch: int | None = None) -> None:
        """Compute retrieval metrics, log them, and keep the best and the last checkpoint.

        Raises
        ------
        TrainingError
            After a training epoch in which all batches were left out, or if ``ckpt_metric`` is none
            of the metrics.
        """
        if stage == sb.Stage.TRAIN:
            if self.nonfinite_count and not self.chance_levels:
                raise TrainingError(
                    f"No step was taken in epoch {epoch}: {self.n_unreadable} clips could not be"
                    f" read, {self.nonfinite_count} batches were left out. log.txt names them:"
                    " correct the manifest or its paths"
                )
            chance = float(np.mean(self.chance_levels))
            self.train_stats = {"loss": float(stage_loss), "chance": chance}
            if self.step_log is not None:
                self.step_log.pause()
            return
        stats = {"loss": float(stage_loss), **self._retrieval(), **self._zero_shot()}
        scores = [stats[name] for name in ("mean_R@1", "zero_shot_UAR") if name in stats]
        stats["mean_score"] = sum(scores) / len(scores)
        for name, hits in self.hits.items():
            if any(len(each) for each in hits):
                stats[f"{name}_accuracy"] = torch.cat(hits).float().mean().item()
        if stage == sb.Stage.TEST:
            self.test_stats = stats
            self._log({"Epoch loaded": self.epoch_counter.current}, test_stats=stats)
            return
        ranked = [name for name in stats if name != "loss"]  # of which the largest is the best
        if self.ckpt_metric not in ranked:
            raise TrainingError(
                f"ckpt_metric is {self.ckpt_metric!r}, by which no epoch can be picked: take one of"
                f" {', '.join(ranked)}"
            )
        meta = {
            "epoch": epoch,
            "lr": float(self.optimizer.param_groups[0]["lr"]),
            "logit_scale": float(unwrapped(self.modules["logit_scale"])().item()),
        }
        self._log(meta, train_stats=self.train_stats, valid_stats=stats)
        self.checkpointer.save_and_keep_only(
            meta={**stats, "epoch": epoch}, max_keys=[self.ckpt_metric], num_to_keep=1
        )

    def _log(self, meta: dict[str, float | None], **stats: dict[str, float]) -> None:
        for train_logger in self.train_loggers:
            train_logger.log_stats(meta, **stats)

    def _retrieval(self) -> dict[str, float]:
        """R@1 of both kinds of captions, both directions averaged, and the mean of the two.

        Captions that are equal are one item, which is relevant to all of their clips: with each a
        wrong one for the other's clip, few different captions would look like chance.
        """
        speech = torch.cat(self.embeddings["speech"])
        text = torch.cat(self.embeddings["text"], dim=1)
        caption_ids = torch.cat(self.caption_ids, dim=1)
        found = {}
        for kind, captions, ids in zip(("global", "fine"), text, caption_ids.tolist(), strict=True):
            _, pairs = caption_pairs(ids)
            distinct = torch.stack(list(dict(zip(ids, captions)).values()))
            metrics = retrieval_metrics(speech, distinct, pairs)
            directions = (metrics["speech_to_text_R@1"], metrics["text_to_speech_R@1"])
            found[f"{kind}_R@1"] = sum(directions) / 2
        found["mean_R@1"] = (found["global_R@1"] + found["fine_R@1"]) / 2
        return found

    @torch.no_grad()
    def _zero_shot(self) -> dict[str, float]:
        """Average recall over classes, averaged over the tasks that clips have classes of."""
        tokenizer = self.tokenizer
        if not self.tasks or tokenizer is None:
            return {}
        text_tower = self.evaluation_modules()["text_tower"]

        def encode_text(texts: list[str]) -> Tensor:
            tokens, padding_mask = tokenizer(texts)
            return text_tower(tokens.to(self.device), padding_mask.to(self.device)).float().cpu()

        speech, labels = torch.cat(self.embeddings["speech"]), torch.cat(self.labels)
        recalls = [
            average_recall(
                classify(speech[own >= 0], task.embed(encode_text), task.pool).numpy(),
                own[own >= 0].numpy(),
            )
            for task, own in zip(self.tasks, labels.unbind(dim=1), strict=True)
            if (own >= 0).any()
        ]
        return {"zero_shot_UAR": sum(recalls) / len(recalls)} if recalls else {}

    def make_dataloader(
        self, dataset: Any, stage: sb.Stage, ckpt_prefix: str = "dataloader-", **loader_kwargs: Any
    ) -> Any:
        """Make a loader; that of the training set keeps our sampler, which splits over the ranks.

        SpeechBrain would wrap the sampler once more, and shard batches that are sharded already.
        """
        if stage != sb.Stage.TRAIN:
            return super().make_dataloader(dataset, stage, ckpt_prefix, **loader_kwargs)
        self.train_sampler = loader_kwargs["batch_sampler"]
        loader = sb.dataio.dataloader.make_dataloader(dataset, **loader_kwargs)
        self.batches_per_epoch = max(len(loader), 1)
        if self.checkpointer is not None:
            self.checkpointer.add_recoverable(f"{ckpt_prefix}{stage.name}", loader)
            if isinstance(self.train_sampler, BucketBatchSampler):
                # Optional: without the lengths of earlier epochs, the sampler plans them again.
                self.checkpointer.add_recoverable("sampler", self.train_sampler, optional_load=True)
        return loader


def _check_lengths(batch: CaptionedSpeech, text_tower: Any) -> None:
    """Raise ValueError that names the clip of a text that is too long.

    Captions are checked before training begins, what swaps make of them only here.
    """
    if batch.tokens.shape[1] > text_tower.max_tokens:
        sizes = (~batch.padding_mask).sum(dim=1)
        longest = int(sizes.argmax())
        place, clip = divmod(longest, len(batch.ids))
        kind = "positive" if place < batch.n_positives else "negative"
        raise ValueError(
            f"Clip {batch.ids[clip]!r}: its {kind} text number {place} has {int(sizes[longest])}"
            f" tokens, at most {text_tower.max_tokens} fit: shorten its captions"
        )


def unwrapped(module: nn.Module) -> nn.Module:
    """Return the module inside the wrappers of DDP and ``torch.compile``, or the module itself.

    Example
    -------
    >>> layer = nn.Linear(1, 1)
    >>> unwrapped(layer) is layer and unwrapped(torch.compile(layer)) is layer
    True
    """
    if isinstance(module, nn.parallel.DistributedDataParallel):
        module = module.module
    return getattr(module, "_orig_mod", module)
