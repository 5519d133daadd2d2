#!/usr/bin/env python3
"""Recipe for training CLSP, contrastive language-speech models, on FCaps or on MiniFCaps.

A speech tower and a text tower learn one space for speech and for descriptions of how it is
spoken. The Brain, with ``compute_forward`` and ``compute_objectives``, is
``speechbrain_clsp/training/brain.py``, its loss ``speechbrain_clsp/training/loss.py``, and what
puts them together ``speechbrain_clsp/training/recipe.py``. To run it:

> python train.py hparams/mini.yaml --data_folder=/path/to/mini_fcaps

With several processes:

> torchrun --standalone --nproc_per_node=2 train.py hparams/mini.yaml --data_folder=... \
    --device=cpu --distributed_backend=gloo

The published stages, on eight GPUs:

> torchrun --standalone --nproc_per_node=8 train.py hparams/train_stage1.yaml \
    --train_manifest=... --valid_manifest=... --test_manifest=...
"""

import sys

import speechbrain as sb

from speechbrain_clsp.cli.boundary import run_script
from speechbrain_clsp.training.recipe import run_recipe

if __name__ == "__main__":
    arguments = sb.parse_arguments(sys.argv[1:])
    sys.exit(run_script(lambda: run_recipe(*arguments), "train.py"))
