"""Adapters in towers: nothing changes before training, all of it can be learnt, and merged."""

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml

from speechbrain_clsp.lobes import (
    PretrainedSpeechTower,
    PretrainedTextTower,
    RobertaTextTower,
    TransformerTextTower,
)
from speechbrain_clsp.lobes.adapters import AdaptedTower, adaptable_layers
from tests.utils.reference import tensor_for
from tests.utils.small import DEFINITION, MINI
from tests.utils.speech_encoders import ENCODERS, SIZE

SIZES = {"dim": 16, "n_layers": 2, "heads": 2, "feedforward": 24, "joint_dim": 8}
BERT = {"model_type": "bert", "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24}
BERT |= {"num_hidden_layers": 2, "num_attention_heads": 2}
WAVLM = {**ENCODERS["wavlm-base"], **SIZE, "num_buckets": 8}
TOKENS = torch.tensor([[2, 4, 5, 3, 7], [2, 6, 3, 0, 0], [2, 3, 0, 0, 0]])


TOWERS = {
    "zipformer": lambda: load_hyperpyyaml(DEFINITION)["speech_tower"],
    "mini": lambda: load_hyperpyyaml(MINI)["speech_tower"],
    "wavlm": lambda: PretrainedSpeechTower(WAVLM, joint_dim=8),
    "transformer": lambda: TransformerTextTower(40, kernel=3, **SIZES),
    "roberta": lambda: RobertaTextTower(40, **SIZES),
    "pretrained": lambda: PretrainedTextTower(BERT, pooling="tokens", dim=8, heads=2, joint_dim=8),
    "pretrained lora": lambda: PretrainedTextTower(BERT, tuning="lora", joint_dim=8),
}


@pytest.fixture(params=TOWERS)
def tower(request):
    """Return a frozen tower, as models are opened, with livelier weights than initial ones."""
    tower = TOWERS[request.param]()
    with torch.no_grad():
        for key, parameter in tower.named_parameters():
            parameter.copy_(tensor_for(key, parameter.shape))
    return tower.eval().requires_grad_(False)


@pytest.mark.parametrize("tune", ["lora", "heads"])
def test_a_tuned_tower_still_embeds_as_before(tower, tune):
    """If this fails, rehearsal holds a model to something else than its base."""
    first, second = inputs(tower)
    expected = tower(first, second).detach()
    adapted = AdaptedTower(tower, tune=tune, rank=2)
    with torch.no_grad():
        for value in adapted.tuned_state().values():
            value.copy_(tensor_for("tuned", value.shape))
    tuned = adapted(first, second)
    assert (tuned - expected).abs().max() > 0.01
    found = adapted.embed_as_before(first, second)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    assert not found.requires_grad and adapted(first, second).equal(tuned)


def inputs(tower, rows=slice(None)):
    """Return padded clips or captions for a tower."""
    if hasattr(tower, "vocab_size"):
        tokens = TOKENS[rows]
        size = int((tokens != 0).sum(dim=1).max())
        return tokens[:, :size], (tokens == 0)[:, :size]
    counts = torch.tensor([9000, 7000, 4800])[rows]
    generator = torch.Generator().manual_seed(0)
    wavs = 0.1 * torch.randn(3, 9000, generator=generator)[rows, : int(counts.max())]
    wavs *= torch.arange(wavs.shape[1]) < counts[:, None]
    return wavs, counts / wavs.shape[1]


def randomize(adapted):
    """Give adapters values as after a training."""
    generator = torch.Generator().manual_seed(1)
    for value in adapted.tuned_state().values():
        value.copy_(0.2 * torch.randn(value.shape, generator=generator))
    return adapted


def test_untrained_adapters_change_nothing(tower):
    """If this fails, fine-tuning starts from another model than the published one.

    Adapted layers are computed whole, plain ones in blocks, which round differently.
    """
    with torch.no_grad():
        expected = tower(*inputs(tower))
        found = AdaptedTower(tower, rank=3)(*inputs(tower))
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


def test_every_adapter_gets_a_gradient_and_nothing_else_does(tower):
    """If this fails, an adapter sits where the forward pass does not read it."""
    adapted = randomize(AdaptedTower(tower, rank=3))
    weights = torch.randn(3, adapted(*inputs(tower)).shape[1])
    (adapted(*inputs(tower)) * weights).sum().backward()
    with_gradient = {
        name.removeprefix("adapted_model.")
        for name, parameter in adapted.named_parameters()
        if parameter.grad is not None and parameter.grad.any()
    }
    assert with_gradient == set(adapted.tuned_state())


def test_a_merged_tower_computes_the_same_and_has_its_old_names(tower):
    """If this fails, what was trained is not what is published."""
    names = list(tower.state_dict())
    with torch.no_grad():
        before = tower(*inputs(tower))
        adapted = randomize(AdaptedTower(tower, rank=3, alpha=6))
        expected = adapted(*inputs(tower))
        merged = adapted.merged()
        torch.testing.assert_close(merged(*inputs(tower)), expected, atol=1e-5, rtol=0)
    assert (expected - before).abs().max() > 1e-3  # or the test says nothing
    assert merged is tower and list(merged.state_dict()) == names


def test_an_adapted_tower_gives_a_clip_the_same_embedding_in_any_batch(tower):
    """If this fails, scores depend on what else is scored."""
    adapted = randomize(AdaptedTower(tower, rank=3))
    with torch.no_grad():
        together = adapted(*inputs(tower))
        for row in range(3):
            alone = adapted(*inputs(tower, [row]))[0]
            torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)


def test_nothing_is_random_while_adapters_are_trained():
    """If this fails, dropout of frozen layers blurs what adapters learn."""
    tower = TransformerTextTower(40, dropout=0.5, head_dropout=0.5, **SIZES)
    adapted = AdaptedTower(tower).train()
    tokens, mask = inputs(tower)
    assert torch.equal(adapted(tokens, mask), adapted(tokens, mask))
    assert not any(module.training for module in adapted.modules())


def test_heads_are_tuned_alone():
    """If this fails, the cheap way trains, and saves, more than the heads."""
    tower = TOWERS["zipformer"]()
    adapted = AdaptedTower(tower, tune="heads")
    assert {name.partition(".")[0] for name in adapted.tuned_state()} == {"head"}
    expected = {f"head.{name}" for name in tower.head.state_dict()}
    assert set(adapted.tuned_state()) == expected and adapted.merged() is tower


def test_layers_are_chosen_by_name():
    """If this fails, --layers adapts other layers than it names."""
    tower = TransformerTextTower(40, **SIZES)
    assert adaptable_layers(tower, ["*.self_att.att", "head.transform.?"]) == [
        "encoder.layers.0.self_att.att",
        "encoder.layers.1.self_att.att",
        "head.transform.0",
        "head.transform.3",
    ]
    with pytest.raises(ValueError, match=r"called decoder\.\*; there are encoder\.layers\.0"):
        AdaptedTower(tower, layers=["decoder.*"])


@pytest.mark.parametrize("options", [{"tune": "all"}, {"rank": 0}, {"alpha": 0}, {"alpha": "a"}])
def test_wrong_options_are_refused(options):
    """If this fails, a misspelt option trains something else."""
    with pytest.raises(ValueError, match=next(iter(options))):
        AdaptedTower(TransformerTextTower(40, **SIZES), **options)
