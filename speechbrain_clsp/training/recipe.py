"""The recipe behind ``train.py``: prepare, train, evaluate, export, report.

What its YAML file describes is built by HyperPyYAML; here it is put together.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml.error import YAMLError
from speechbrain.core import DEFAULT_LOG_CONFIG
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.logger import get_logger

from speechbrain_clsp.dataio.checks import (
    check_captions,
    check_clips,
    check_durations,
    check_evaluated,
    check_labels,
    check_lengths,
)
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset, Collate
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.dataio.sampler import BucketBatchSampler
from speechbrain_clsp.evaluation.models import CachedModel, ClspModel
from speechbrain_clsp.evaluation.probes import make_pairs
from speechbrain_clsp.evaluation.report import write_results
from speechbrain_clsp.evaluation.suites import run_suite
from speechbrain_clsp.evaluation.tables import markdown_tables
from speechbrain_clsp.evaluation.zero_shot import check_tasks, labels_of, read_tasks
from speechbrain_clsp.inference.background import embed_background
from speechbrain_clsp.lobes.speech_tower import FEATURE_ARGUMENTS
from speechbrain_clsp.prepare.leakage import SAME_CLIP
from speechbrain_clsp.pretrained.background import write_background
from speechbrain_clsp.pretrained.card import write_card
from speechbrain_clsp.training.brain import ContrastiveBrain
from speechbrain_clsp.training.finetuning import FineTunedModel
from speechbrain_clsp.training.new_model import NewModel
from speechbrain_clsp.training.own_data import describe_leaks
from speechbrain_clsp.training.resume import check_kind, find_changes
from speechbrain_clsp.training.yaml_keys import check_keys
from speechbrain_clsp.utils.distributed import join_processes
from speechbrain_clsp.utils.files import sha256_of_file
from speechbrain_clsp.utils.memory import keep_freed_memory

logger = get_logger(__name__)
Model = NewModel | FineTunedModel
MOST_COMPARED = 50_000  # clips to rehearse whose sounds are compared with those of the test


def captions_of(manifest: Manifest) -> Iterator[str]:
    """Yield all captions, global and fine ones."""
    return chain(*manifest.column("global_captions"), *manifest.column("fine_captions"))


def prepare_tokenizer(hparams: Mapping[str, Any], model: Model) -> None:
    """Save the model's tokenizer, which may be trained on the captions; none if it is there."""
    path, source = Path(hparams["tokenizer_file"]), hparams["tokenizer_source"]
    if path.is_file():
        logger.info("Tokenizer found in %s", path)
        return
    texts = captions_of(Manifest(hparams["train_manifest"]))
    if source == "captions_and_prompts" and hparams["attribute_prompts"] is not None:
        texts = chain(texts, hparams["attribute_prompts"].texts())
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save_tokenizer(path, source, texts)


def prepare(hparams: Mapping[str, Any], model: Model) -> None:
    """Make the data and the tokenizer on the main process; then load the initial weights."""
    if hparams["prepare_data"] is not None:
        run_on_main(hparams["prepare_data"])
    run_on_main(prepare_tokenizer, args=[hparams, model])
    model.tokenizer.load(hparams["tokenizer_file"])
    resumed = bool(hparams["checkpointer"].list_checkpoints())
    run_on_main(note_changes, args=[hparams, model, resumed])
    if hparams["initialize"] is not None and not resumed:
        hparams["initialize"]()


def note_changes(hparams: Mapping[str, Any], model: Model, resumed: bool) -> None:
    """Warn if a resumed training has other data or batches than before."""
    settings = {
        name: hparams[name]
        for name in ("batch_size", "batch_seconds", "n_shards", "shortest", "longest", "seed")
    }
    for split in ("train_manifest", "valid_manifest"):
        settings[split] = f"sha256 {sha256_of_file(hparams[split])}"
    old = hparams["rehearsal"]
    settings["rehearsal"] = old and f"sha256 {sha256_of_file(old.manifest.path)}"
    tower = hparams["modules"]["speech_tower"]
    settings |= {each: getattr(tower, each, None) for each in FEATURE_ARGUMENTS}
    settings |= model.provenance()
    for change in find_changes(Path(hparams["save_folder"]), settings):
        if resumed:
            logger.warning("Resumed with other settings: %s", change)


def check_data(
    hparams: Mapping[str, Any], model: Model, datasets: Mapping[str, CaptionedSpeechDataset]
) -> None:
    """Raise ValueError for what would stop the training at the end of an epoch, or at its own."""
    tokenizer = model.tokenizer
    max_tokens = hparams["modules"]["text_tower"].max_tokens
    check_captions(datasets["train"].manifest, tokenizer, max_tokens)
    most = hparams["modules"]["speech_tower"].max_seconds
    check_durations(datasets["train"].manifest, most, hparams["longest"])
    if hparams["rehearsal"] is not None:
        old = hparams["rehearsal"].manifest
        check_captions(old, tokenizer, max_tokens)
        check_durations(old, most, hparams["rehearsal"].longest)
        check_clips(old, str(old.path))
        evaluated = {split: datasets[split].manifest for split in ("valid", "test")}
        kinds = ("speaker", *SAME_CLIP) if len(old) <= MOST_COMPARED else ("speaker", "id")
        print("\n".join(describe_leaks(old, evaluated, "rehearsal", kinds)))
    if hparams["attribute_labels"] is not None:
        check_labels(datasets["train"].manifest, hparams["attribute_labels"])
    for split in ("valid", "test"):
        check_evaluated(datasets[split], tokenizer, max_tokens)
        check_durations(datasets[split].manifest, most)
    tasks = [*read_tasks(hparams["zero_shot_tasks"]), *hparams["valid_tasks"]]
    prompts = [(f"task {task.name!r}", text) for task in tasks for text in task.texts]
    check_lengths(prompts, tokenizer, max_tokens, "prompts")
    check_tasks(tasks, datasets["test"].manifest, str(datasets["test"].manifest.path))
    probes = Manifest(hparams["probes_manifest"])
    check_clips(probes, hparams["probes_manifest"])
    check_durations(probes, most)
    texts = captions_of(datasets["train"].manifest)
    if unknown := model.describe_unknown(chain(texts, (text for _, text in prompts))):
        print(unknown)


def dataio_prepare(hparams: Mapping[str, Any]) -> tuple[dict, dict]:
    """Make the datasets and the arguments of their loaders, by split."""
    train = Manifest(hparams["train_manifest"])
    sampler: Any = BucketBatchSampler(
        train.array("duration"),
        hparams["batch_size"],
        hparams["batch_seconds"],
        seed=hparams["seed"],
        shortest=hparams["shortest"],
        longest=hparams["longest"],
        block=hparams["shuffle_block"],
        n_shards=hparams["n_shards"],
        group_size=hparams["group_size"],
        passes=hparams["passes"],
    )
    logger.info("%d batches, %.1f %% padding", len(sampler), 100 * sampler.padding_fraction())
    evaluated = partial(
        CaptionedSpeechDataset,
        captions=hparams["contrasts"],
        seed=hparams["seed"],
        labels=partial(labels_of, hparams["valid_tasks"]),
    )
    dataset: Any = CaptionedSpeechDataset(
        train,
        hparams["captions"],
        hparams["seed"],
        hparams["attribute_labels"],
        skip_unreadable=True,
    )
    if hparams["rehearsal"] is not None:
        dataset, sampler = hparams["rehearsal"].mix(dataset, sampler)
    datasets = {
        "train": dataset,
        "valid": evaluated(Manifest(hparams["valid_manifest"])),
        "test": evaluated(Manifest(hparams["test_manifest"])),
    }
    tokenizer = hparams["model"]["tokenizer"]
    with_prompts = Collate(tokenizer, hparams["attribute_prompts"])
    collate = {"collate_fn": Collate(tokenizer)}
    loader_kwargs = {
        "train": {
            **hparams["train_dataloader_opts"],
            "collate_fn": with_prompts,
            "batch_sampler": sampler,
        },
        "valid": {**hparams["valid_dataloader_opts"], **collate},
        "test": {**hparams["test_dataloader_opts"], **collate},
    }
    return datasets, loader_kwargs


def make_train_loggers(hparams: Mapping[str, Any]) -> list:
    """Return the file logger, and TensorBoard's if it is asked for."""
    loggers = [hparams["train_logger"]]
    if hparams["use_tensorboard"]:
        from speechbrain.utils.train_logger import TensorboardLogger

        loggers.append(TensorboardLogger(str(Path(hparams["output_folder"]) / "tensorboard")))
    return loggers


def make_brain(
    hparams: dict[str, Any], run_opts: dict[str, Any], train_loggers: list
) -> ContrastiveBrain:
    """Return the Brain that the YAML file describes."""
    return ContrastiveBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
        loss=hparams["loss"],
        lr_annealing=hparams["lr_annealing"],
        epoch_counter=hparams["epoch_counter"],
        train_loggers=train_loggers,
        ckpt_metric=hparams["ckpt_metric"],
        seed=hparams["seed"],
        encoder_lr=hparams["encoder_lr"],
        gradcache_chunk_seconds=hparams["gradcache_chunk_seconds"],
        max_unreadable_clips=hparams["max_unreadable_clips"],
        model_average=hparams["model_average"],
        schedule_step=hparams["schedule_step"],
        step_log=hparams["step_log"],
        contrasts=list(hparams["contrasts"].swaps),
        tasks=hparams["valid_tasks"],
        tokenizer=hparams["model"]["tokenizer"],
        augmentation=hparams["augmentation"],
    )


def export_background(model: ClspModel, manifest_path: str | os.PathLike) -> None:
    """Put embeddings of some clips into a model's folder, for ``CLSP.percentile``."""
    embeddings = embed_background(model.clsp, Manifest(manifest_path))
    source = f"{len(embeddings)} clips of {Path(manifest_path).name}"
    write_background(model.model, embeddings, source)


def export_and_report(brain: ContrastiveBrain, hparams: Mapping[str, Any], model: Model) -> None:
    """Write the model folder of the loaded checkpoint, then its metrics, tables and report."""
    output_folder = Path(hparams["output_folder"])
    folder = output_folder / "model"
    metrics = {f"test {name}": value for name, value in brain.test_stats.items()}
    model.save(folder, brain.evaluation_modules(), metrics, hparams["tokenizer_file"])
    opened = model.open_evaluated(folder, str(brain.device))
    trained = next(iter(opened.values()))
    export_background(trained, hparams["valid_manifest"])
    models = {name: CachedModel(each) for name, each in opened.items()}
    evaluate = partial(run_suite, models=models, seed=hparams["seed"])
    evaluation = evaluate(
        "mini", data=[hparams["test_manifest"]], prompts=hparams["zero_shot_tasks"]
    )
    probes_manifest, pairs = hparams["probes_manifest"], hparams["probe_pairs"]
    if pairs is not None or make_pairs(list(Manifest(probes_manifest)), hparams["seed"]):
        evaluation.merge(evaluate("probes", data=[probes_manifest], pairs=pairs))
    write_results(evaluation, output_folder, hparams["train_log"])
    n_clips = len(Manifest(hparams["test_manifest"]))
    write_card(
        folder,
        evaluation.summary(next(iter(models))),
        model.describe_base(),
        dataset=f"{Path(hparams['test_manifest']).name}, {n_clips} clips",
    )
    print(markdown_tables(evaluation, examples=False))
    for line in model.describe_changes(evaluation, n_clips):
        print(line)
    print(f"Model, metrics.json and report.html are in {output_folder}")


def load_recipe(hparams_file: str | os.PathLike, overrides: str | dict | None) -> dict[str, Any]:
    """Build what a recipe's YAML file describes.

    Raises
    ------
    ValueError, TypeError
        If the file or an override is not valid, or an object cannot be built.
    """
    with open(hparams_file, encoding="utf-8") as fin:
        try:
            return load_hyperpyyaml(fin, overrides)
        except TypeError as error:  # of two arguments: what was called, and what it says
            raise TypeError(": ".join(map(str, error.args))) from error
        except YAMLError as error:
            raise ValueError(f"{hparams_file}, or an option, is not valid YAML: {error}") from error
        except KeyError as error:
            message = str(error.args[0]) if error.args else ""
            if not message.startswith("Override "):  # HyperPyYAML's, of an unknown key
                raise
            raise ValueError(f"{hparams_file}: {message}") from error


def run_recipe(
    hparams_file: str | os.PathLike, run_opts: dict[str, Any], overrides: str | dict | None = None
) -> None:
    """Prepare the data, train, and evaluate the epoch that was best on the validation set.

    Arguments
    ---------
    hparams_file : str or path
        The recipe's YAML file.
    run_opts : dict
        SpeechBrain's options of a run, such as ``device``.
    overrides : str or dict, optional
        Of values in the YAML file.

    Raises
    ------
    ValueError, TypeError
        If a setting or the data would stop the training later on.
    """
    join_processes(run_opts)
    check_keys(hparams_file, __file__)
    hparams = load_recipe(hparams_file, overrides)
    model = hparams["model"]
    if not isinstance(model, FineTunedModel):
        model = NewModel(model)
    check_kind(Path(hparams["save_folder"]), model.provenance())  # before anything is written
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=str(hparams_file),
        overrides=overrides,
        log_config=run_opts.get("log_config") or DEFAULT_LOG_CONFIG,
    )
    if hparams["num_threads"] < 1:
        raise ValueError(f"num_threads must be at least 1, not {hparams['num_threads']}")
    torch.set_num_threads(hparams["num_threads"])
    keep_freed_memory()
    prepare(hparams, model)
    datasets, loader_kwargs = dataio_prepare(hparams)
    run_on_main(check_data, args=[hparams, model, datasets])
    brain = make_brain(hparams, run_opts, make_train_loggers(hparams))
    brain.fit(
        hparams["epoch_counter"],
        datasets["train"],
        datasets["valid"],
        train_loader_kwargs=loader_kwargs["train"],
        valid_loader_kwargs=loader_kwargs["valid"],
    )
    if not hparams["checkpointer"].list_checkpoints():
        raise ValueError(f"{hparams['save_folder']} holds no checkpoint: there is no model to test")
    # Picked on the validation set: the test set has no say in which epoch is kept.
    brain.evaluate(
        datasets["test"],
        max_key=hparams["ckpt_metric"],
        test_loader_kwargs=loader_kwargs["test"],
    )
    run_on_main(export_and_report, args=[brain, hparams, model])
