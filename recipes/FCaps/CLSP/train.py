#!/usr/bin/env python3
"""Recipe for training CLSP, contrastive language-speech models, on FCaps or its synthetic stand-in.

A speech tower and a text tower learn one space for speech and for descriptions of how it is
spoken. To run it:

> python train.py hparams/mini.yaml --data_folder=/path/to/mini_fcaps

With several processes:

> torchrun --standalone --nproc_per_node=2 train.py hparams/mini.yaml --data_folder=... \
    --device=cpu --distributed_backend=gloo

The published stages, on eight GPUs:

> torchrun --standalone --nproc_per_node=8 train.py hparams/train_stage1.yaml \
    --train_manifest=... --dev_manifest=... --test_manifest=...
"""

import sys
from contextlib import nullcontext
from itertools import chain
from pathlib import Path

import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml
from speechbrain.utils.distributed import run_on_main
from speechbrain.utils.logger import get_logger

from speechbrain_clsp import CLSP
from speechbrain_clsp.captions.policies import evaluation_captions
from speechbrain_clsp.dataio.dataset import CaptionedSpeechDataset, Collate
from speechbrain_clsp.dataio.manifest import Manifest
from speechbrain_clsp.dataio.sampler import BucketBatchSampler
from speechbrain_clsp.dataio.tokenizers import train_sentencepiece
from speechbrain_clsp.evaluation.suite import evaluate, format_table
from speechbrain_clsp.pretrained.folder import extract_definition, save_model_folder
from speechbrain_clsp.pretrained.hub import fetch_tokenizer
from speechbrain_clsp.training.brain import ContrastiveBrain
from speechbrain_clsp.utils.distributed import join_processes

logger = get_logger(__name__)


def prepare_tokenizer(hparams: dict) -> None:
    """Train a tokenizer on the captions, or fetch one; nothing if there is one already."""
    path, source = Path(hparams["tokenizer_file"]), hparams["tokenizer_source"]
    if path.is_file():
        logger.info("Tokenizer found in %s", path)
    elif source == "captions":
        rows = Manifest(hparams["train_manifest"])
        captions = chain(*rows.column("global_captions"), *rows.column("fine_captions"))
        train_sentencepiece(captions, path, hparams["vocab_size"])
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        fetch_tokenizer(source).save(path)


def train_loggers(hparams: dict) -> list:
    """Return the file logger, and TensorBoard's if it is asked for."""
    loggers = [hparams["train_logger"]]
    if hparams["use_tensorboard"]:
        from speechbrain.utils.train_logger import TensorboardLogger

        loggers.append(TensorboardLogger(str(Path(hparams["output_folder"]) / "tensorboard")))
    return loggers


def dataio_prepare(hparams: dict) -> dict:
    """Make the datasets and, for each, the arguments of its loader."""
    data, collate = {}, Collate(hparams["model"]["tokenizer"])
    for split in ("train", "dev", "test"):
        manifest = Manifest(hparams[f"{split}_manifest"])
        loader = dict(hparams["dataloader_opts"], collate_fn=collate)
        if split == "train":
            dataset = CaptionedSpeechDataset(
                manifest,
                hparams["captions"],
                hparams["seed"],
                hparams["attribute_labels"],
                skip_unreadable=True,
            )
            sampler = BucketBatchSampler(
                manifest.array("duration"),
                hparams["batch_size"],
                hparams["batch_seconds"],
                seed=hparams["seed"],
                shortest=hparams["shortest"],
                longest=hparams["longest"],
                block=hparams["shuffle_block"],
                shares=hparams["shares"],
            )
            logger.info("%d batches, %.1f %% padding", len(sampler), 100 * sampler.padding_share())
            loader["batch_sampler"] = sampler
        else:
            dataset = CaptionedSpeechDataset(manifest, evaluation_captions)
            loader["batch_size"] = hparams["evaluation_batch_size"]
        data[split] = (dataset, loader)
    return data


def export_and_report(brain: ContrastiveBrain, hparams: dict) -> None:
    """Write the model folder of the loaded checkpoint, then metrics.json and report.html."""
    output_folder = Path(hparams["output_folder"])
    average = hparams["model_average"]
    # What SpeechBrain wrote there: the recipe's YAML, with overrides and includes resolved.
    recipe = (output_folder / "hyperparams.yaml").read_text(encoding="utf-8")
    with average.applied() if average else nullcontext():
        save_model_folder(
            output_folder / "model",
            extract_definition(recipe, "model"),
            hparams["model"]["modules"],
            {hparams["model"]["tokenizer"].FILENAME: hparams["tokenizer_file"]},
            {f"test {name}": value for name, value in brain.test_stats.items()},
        )
    metrics = evaluate(
        CLSP.from_hparams(output_folder / "model", run_opts={"device": str(brain.device)}),
        Manifest(hparams["test_manifest"]),
        hparams["zero_shot_tasks"],
        output_folder,
        training_log=hparams["train_log"],
        model_name=Path(hparams["output_folder"]).name,
        seed=hparams["seed"],
    )
    print(format_table(metrics))
    print(f"Model, metrics.json and report.html are in {output_folder}")


def prepare(hparams: dict) -> None:
    """Make the data and the tokenizer, on the main process; then let training start somewhere."""
    if hparams["prepare_data"] is not None:
        run_on_main(hparams["prepare_data"])
    run_on_main(prepare_tokenizer, args=[hparams])
    hparams["model"]["tokenizer"].load(hparams["tokenizer_file"])
    resumed = any(Path(hparams["save_folder"]).glob("CKPT*"))
    if hparams["initialize"] is not None and not resumed:
        hparams["initialize"]()


def main() -> None:
    """Prepare the data, train, and evaluate the epoch that was best on dev."""
    hparams_file, run_opts, overrides = sb.parse_arguments(sys.argv[1:])
    join_processes(run_opts)
    with open(hparams_file, encoding="utf-8") as fin:
        hparams = load_hyperpyyaml(fin, overrides)
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    torch.set_num_threads(hparams["num_threads"])
    prepare(hparams)
    data = dataio_prepare(hparams)
    hparams["train_loggers"] = train_loggers(hparams)
    brain = ContrastiveBrain(
        modules=hparams["modules"],
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=run_opts,
        checkpointer=hparams["checkpointer"],
    )
    brain.fit(
        hparams["epoch_counter"],
        data["train"][0],
        data["dev"][0],
        train_loader_kwargs=data["train"][1],
        valid_loader_kwargs=data["dev"][1],
    )
    # Picked on dev: the test set has no say in which epoch is kept.
    brain.evaluate(
        data["test"][0], max_key=hparams["ckpt_metric"], test_loader_kwargs=data["test"][1]
    )
    run_on_main(export_and_report, args=[brain, hparams])


if __name__ == "__main__":
    main()
