"""Correctness on the device: reference values, precisions, gradients, a training step, a resume."""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from gpu_parts import models, recipe
from gpu_parts.setting import RowFunction, Setting, float32_products
from speechbrain_clsp.evaluation.retrieval.ranking import rank_pairs
from speechbrain_clsp.lobes.features import KaldiFbank
from speechbrain_clsp.lobes.zipformer.regularizers import Balancer, Whiten
from speechbrain_clsp.nnet.gradcache import GradCache
from speechbrain_clsp.nnet.losses import contrastive_loss, hard_negative_loss
from speechbrain_clsp.nnet.masking import masked_mean, padding_mask
from speechbrain_clsp.nnet.optim import ScaledAdam
from speechbrain_clsp.nnet.schedulers import Eden
from tests.utils.reference import stored, tiny_speech_tower

LEAST_COSINE = 0.9995


def rows(setting: Setting) -> Iterator[tuple[str, RowFunction]]:
    """Yield the checks, cheap ones first."""
    for name, check in (
        ("filter banks", fbank),
        ("speech tower, every stage", stages),
        ("losses and gradients", losses),
        ("regularizers' gradients", regularizers),
        ("ScaledAdam, 40 steps", scaled_adam),
        ("loss gradients, plain and tiled against float64", loss_gradients),
        ("ranks equal those of the CPU", ranks),
        ("GradCache replays bit for bit", gradcache),
        ("checkpointed layers replay", checkpointed),
    ):
        yield name, lambda check=check: check(setting)
    for size, make in (("tiny", tiny), ("full size", models.lively_tower)):
        yield f"{size}: precisions", lambda make=make: precisions(setting, make)
        yield f"{size}: batched equals single", lambda make=make: batched(setting, make)
    yield "full size: device equals CPU", lambda: equals_cpu(setting)
    backend = "nccl" if setting.on_gpu else "gloo"
    yield f"train_stage2.yaml: step and resume, {backend}", lambda: resume(setting, backend)


def against(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float) -> dict:
    """Return a row: the largest difference, where it is, and whether it is within the tolerance."""
    gaps = {
        name: (value.detach().cpu().double() - expected[name].double()).abs().max().item()
        for name, value in found.items()
    }
    worst = max(gaps, key=lambda name: gaps[name] if gaps[name] == gaps[name] else torch.inf)
    return {
        "largest difference": gaps[worst],
        "at": worst,
        "allowed": tolerance,
        "passed": gaps[worst] <= tolerance,
    }


def leaf(setting: Setting, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Return a copy on the device that collects gradients."""
    return x.detach().to(setting.device, dtype, copy=True).requires_grad_()


def fbank(setting: Setting) -> dict:
    """Compare two waveforms' features; the logarithm of small powers is what differs."""
    reference, layer = stored("fbank"), KaldiFbank().to(setting.device)
    waves = {f"fbank_{i}": reference[f"wave_{i}"][None].to(setting.device) for i in "01"}
    found = {name: layer(wave)[0][0] for name, wave in waves.items()}
    return against(found, reference, 2e-4)


@torch.no_grad()
def stages(setting: Setting) -> dict:
    """Compare the outputs of all stages for the clip without padding."""
    reference, found = stored("clsp_tiny"), {}
    tower = tiny(setting)
    for i, stack in enumerate(tower.encoder.encoders):
        stack.register_forward_hook(lambda *call, i=i: found.update({f"stack_{i}": call[-1]}))
    counts = reference["feature_lengths"][:1].to(setting.device)
    features = reference["features"][:1].to(setting.device)
    found["subsampled"], counts = tower.encoder_embed(features, counts)
    found["encoded"], counts = tower.encoder(found["subsampled"], counts)
    mask = padding_mask(counts, found["encoded"].shape[1])
    found["pooled"] = masked_mean(found["encoded"], mask)
    found["speech_embedding"] = tower.head(found["pooled"])
    return against(found, {name: value[:1] for name, value in reference.items()}, 1e-5)


def losses(setting: Setting) -> dict:
    """Compare losses and their gradients with the published ones."""
    reference, found = stored("losses"), {}
    for name, n_texts in (("single", 1), ("multi", 2), ("hard", 0)):
        count = 6 * max(n_texts, 1)
        leaves = [reference["speech"], reference["text"][:count], reference["scale"]]
        speech, text, scale = (leaf(setting, x) for x in leaves)
        if n_texts:
            loss = contrastive_loss(speech, text.view(n_texts, 6, 16), scale)
        else:
            loss = hard_negative_loss(speech, text, reference["negative"].to(setting.device), scale)
        loss.backward()
        found |= {f"{name}_loss": loss.view(1), f"{name}_grad_speech": speech.grad}
        found[f"{name}_grad_scale"] = scale.grad
    return against(found, reference, 1e-5)


def regularizers(setting: Setting) -> dict:
    """Compare what Balancers and Whitens make of a gradient."""
    reference, found = stored("regularisers"), {}
    rules = {
        "balancer_a": Balancer(0.45, 0.55, 0.2, 4.0, probability=1.0),
        "balancer_b": Balancer(0.3, 0.7, 1.0, 1.5, grad_scale=0.1, probability=1.0),
        "whiten_one": Whiten(2.0, grad_scale=0.01, groups=1, probability=1.0),
        "whiten_four": Whiten(1.5, grad_scale=0.025, groups=4, probability=1.0),
    }
    for name, rule in rules.items():
        x = leaf(setting, reference["x"])
        rule(x).backward(reference["grad"].to(setting.device))
        found[name] = x.grad
    return against(found, reference, 1e-5)


def scaled_adam(setting: Setting) -> dict:
    """Replay the reference's gradients, under its schedule."""
    reference, found = stored("scaled_adam"), {}
    parameters = {n: torch.nn.Parameter(reference[f"init_{n}"].to(setting.device)) for n in "wvs"}
    optimizer = ScaledAdam(parameters.values(), lr=0.045, clipping_update_period=8)
    schedule = Eden(lr_batches=20, lr_epochs=2, warmup_batches=10, warmup_start=0.5)
    for k in range(40):
        schedule(optimizer, step=k, epoch=k // 10)
        for name, parameter in parameters.items():
            parameter.grad = reference[f"grad_{k}_{name}"].to(setting.device)
        optimizer.step()
        for name, parameter in parameters.items():
            if f"after_{k}_{name}" in reference:
                found[f"after_{k}_{name}"] = parameter.detach().clone()
    return against(found, reference, 1e-5)


def loss_gradients(setting: Setting) -> dict:
    """Compare both ways of computing the loss with float64, at the highest logit scale."""
    unit, clips = torch.nn.functional.normalize, setting.pick(512, 40)
    draw = torch.Generator().manual_seed(0)
    speech = unit(torch.randn(clips, 512, generator=draw).double(), dim=-1)
    text = unit(speech + torch.randn(2, clips, 512, generator=draw) / 10, dim=-1)

    def gradients(dtype: torch.dtype, tile: int | None) -> dict[str, Tensor]:
        leaves = [speech, text, torch.tensor([100.0]).double()]
        leaves = [leaf(setting, x, dtype) for x in leaves]
        loss = contrastive_loss(*leaves, tile)
        loss.backward()
        names = ("speech", "text", "scale")
        # The speech and text gradients grow with the scale, 100.
        grads = {n: x.grad / (1 if n == "scale" else 100) for n, x in zip(names, leaves)}
        return {"loss": loss.detach()} | grads

    exact = {name: value.cpu() for name, value in gradients(torch.float64, None).items()}
    plain = against(gradients(torch.float32, None), exact, 1e-5)
    tiled = against(gradients(torch.float32, clips // 5), exact, 1e-5)
    return {
        "plain": plain["largest difference"],
        "tiled": tiled["largest difference"],
        "allowed": 1e-5,
        "passed": plain["passed"] and tiled["passed"],
    }


def ranks(setting: Setting) -> dict:
    """Compare ranks on the device with those on the CPU, ties and TF32 included."""
    draw = torch.Generator().manual_seed(0)
    speech = torch.randn(setting.pick(3000, 60), 512, generator=draw)
    text = speech + 5.5 * torch.randn(speech.shape, generator=draw)
    text[1] = text[0]
    with float32_products(tf32=True):
        found = rank_pairs(speech.to(setting.device), text.to(setting.device)).rank.cpu()
    differing = int((found != rank_pairs(speech, text).rank).sum())
    return {"pairs": len(speech), "ranks that differ": differing, "passed": differing == 0}


def tiny(setting: Setting) -> torch.nn.Module:
    """Return the small model of the reference values."""
    return tiny_speech_tower().to(setting.device)


def gradcache(setting: Setting) -> dict:
    """Compare the second pass's embeddings with the first's; dropout and skips are on."""
    tower = models.speech_tower(setting).train()
    seen: list[Tensor] = []

    def encode(chunk: Tensor) -> tuple[Tensor]:
        with torch.autocast(setting.device.type, torch.bfloat16):
            seen.append(tower(chunk))
        return (seen[-1],)

    wavs = models.noise(setting, 6, setting.pick(3.0, 0.5))
    cache = GradCache(encode)
    (embeddings,) = cache.encode(wavs.split(2))
    (embeddings @ embeddings.T).logsumexp(1).sum().backward()
    cache.backward()
    equal = [torch.equal(one, two) for one, two in zip(seen[:3], seen[3:])]
    other = tower(wavs[:2])  # drawn anew: it must differ, or nothing was random
    drawn = not torch.equal(other, seen[0])
    passed = len(seen) == 6 and all(equal) and drawn
    return {"chunks": len(equal), "equal": sum(equal), "random": drawn, "passed": passed}


def checkpointed(setting: Setting) -> dict:
    """Compare gradients with and without layers whose activations are computed again."""
    gradients, states = [], []
    tower = models.speech_tower(setting).train()
    wavs = models.noise(setting, 3, setting.pick(3.0, 0.5))
    with deterministic():
        for chosen in (False, True):
            choose_checkpointing(tower, chosen)
            tower.zero_grad(set_to_none=True)
            torch.manual_seed(5)
            with torch.autocast(setting.device.type, torch.bfloat16):
                loss = tower(wavs)[:, ::3].sum()
            loss.backward()
            gradients.append([p.grad for p in tower.parameters()])
            states.append(torch.rand(1, device=setting.device).item())
    gap = max((a - b).abs().max().item() for a, b in zip(*gradients))
    same = states[0] == states[1]
    return {"largest difference": gap, "random state equal": same, "passed": gap == 0 and same}


def choose_checkpointing(tower: torch.nn.Module, chosen: bool) -> None:
    """Turn activation checkpointing of all layers on or off."""
    for module in tower.modules():
        if hasattr(module, "checkpoint_layers"):
            module.checkpoint_layers = chosen


@torch.no_grad()
def precisions(setting: Setting, make: Callable) -> dict:
    """Return the smallest cosine of each precision's embeddings with those of float32."""
    wavs = models.noise(setting, setting.pick(8, 2), setting.pick(6.0, 0.9))
    exact = make(setting)(wavs)
    tower = make(setting)
    with float32_products(tf32=True):
        row = {"tf32": cosine(tower(wavs), exact)}
    for name in ("bf16", "fp16"):
        if name == "fp16" and not setting.on_gpu:
            row[name] = None  # CLSP refuses it on a CPU
            continue
        tower = make(setting)
        tower.cast({"bf16": torch.bfloat16, "fp16": torch.float16}[name])
        row[name] = cosine(tower(wavs), exact)
    found = [value for value in row.values() if value is not None]
    spread = cosine(exact[:1], exact[1:2])
    passed = all(value >= LEAST_COSINE for value in found)
    return {**row, "allowed": LEAST_COSINE, "cosine of two clips": spread, "passed": passed}


def cosine(found: Tensor, exact: Tensor) -> float:
    """Return the smallest cosine of rows; NaN stays NaN."""
    return torch.nn.functional.cosine_similarity(found.double(), exact.double()).min().item()


@torch.no_grad()
def batched(setting: Setting, make: Callable) -> dict:
    """Compare a padded batch with each clip alone, with and without TF32."""
    tower = make(setting)
    seconds = setting.pick([6.0, 4.1, 1.3, 0.4], [0.9, 0.5])
    wavs = [models.noise(setting, 1, length, seed)[0] for seed, length in enumerate(seconds)]
    together = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    lengths = torch.tensor([len(wav) / together.shape[1] for wav in wavs], device=setting.device)
    row = {}
    for name, tf32 in (("fp32", False), ("fp32, TF32 products", True)):
        with float32_products(tf32):
            alone = torch.cat([tower(wav[None]) for wav in wavs])
            row[name] = (tower(together, lengths) - alone).abs().max().item()
    torch.backends.cudnn.allow_tf32 = True  # what PyTorch does unless told otherwise
    alone = torch.cat([tower(wav[None]) for wav in wavs])
    row["fp32, PyTorch's defaults"] = (tower(together, lengths) - alone).abs().max().item()
    torch.backends.cudnn.allow_tf32 = False
    return {**row, "allowed for fp32": 1e-4, "passed": row["fp32"] <= 1e-4}


@torch.no_grad()
def equals_cpu(setting: Setting) -> dict:
    """Compare float32 embeddings of the full-size speech tower with those of the CPU."""
    tower = models.lively_tower(setting)
    wavs = models.noise(setting, 2, setting.pick(2.0, 0.5))
    found = tower(wavs)
    return against({"embedding": found}, {"embedding": tower.cpu()(wavs.cpu())}, 1e-4)


class deterministic:
    """Choose algorithms whose sums have one order, where there are any."""

    def __enter__(self) -> None:
        torch.use_deterministic_algorithms(True, warn_only=True)

    def __exit__(self, *_) -> None:
        torch.use_deterministic_algorithms(False)


def resume(setting: Setting, backend: str) -> dict:
    """Take two steps of the recipe; then the second one again from a checkpoint, in a new Brain.

    What differs between two runs of one step from one state, if anything, is the device's own
    doing; a resumed step may differ by no more.
    """
    manifest = recipe.write_data(setting, setting.folder / "data", setting.pick(160.0, 12.0))
    output = setting.folder / "stage2"
    shutil.rmtree(output, ignore_errors=True)
    more = {"batch_seconds": setting.pick(60, 4), "precision": setting.pick("bf16", "fp32")}
    store = setting.folder / "store"
    store.unlink(missing_ok=True)
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    torch.distributed.init_process_group(
        backend, init_method=f"file://{store}", rank=0, world_size=1
    )
    try:
        with deterministic():
            hparams = recipe.hparams_for(setting, manifest, output, **more)
            first, second = recipe.batches_for(hparams, 2)
            brain = recipe.brain_for(setting, hparams, distributed_backend=backend)
            losses = [recipe.take_step(brain, first)]
            brain.checkpointer.save_checkpoint(meta={})
            losses.append(recipe.take_step(brain, second))
            whole = state_of(brain)
            brain.checkpointer.recover_if_possible()
            recipe.take_step(brain, second)
            again = difference(state_of(brain), whole)
            wrapped = type(brain.modules.speech_tower).__name__
            del brain, hparams
            gc.collect()
            setting.free()
            hparams = recipe.hparams_for(setting, manifest, output, **more, seed=7)
            hparams["seed"] = 42  # other initial weights, the same random numbers in a step
            brain = recipe.brain_for(setting, hparams, distributed_backend=backend)
            losses.append(recipe.take_step(brain, second))
            resumed = difference(state_of(brain), whole)
            size = sum(f.stat().st_size for f in output.rglob("*") if f.is_file()) / 2**30
    finally:
        torch.distributed.destroy_process_group()
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE"):
            os.environ.pop(name)
        shutil.rmtree(setting.folder, ignore_errors=True)
    finite = all(loss == loss for loss in losses)
    return {
        "million weights": sum(map(models.n_parameters, brain.modules.values())) / 1e6,
        "wrapped in": wrapped,
        "losses": " ".join(f"{loss:.4f}" for loss in losses),
        "resumed, largest difference": resumed,
        "repeated, largest difference": again,
        "checkpoint GiB": size,
        "peak GiB": setting.peak_gib(),
        "passed": finite and resumed <= again,
    }


def state_of(brain) -> list[Tensor]:
    """Return copies of all weights and of all that the optimizer knows of them."""
    tensors = list(brain.modules.state_dict().values())
    for state in brain.optimizer.state_dict()["state"].values():
        tensors += [value for value in state.values() if isinstance(value, Tensor)]
    return [x.detach().clone() for x in tensors if x.is_floating_point()]


def difference(found: list[Tensor], expected: list[Tensor]) -> float:
    """Return the largest difference of two lists of tensors."""
    if len(found) != len(expected):
        raise ValueError(f"{len(found)} tensors, not {len(expected)}")
    return max((a.to(b) - b).abs().max().item() for a, b in zip(found, expected))
