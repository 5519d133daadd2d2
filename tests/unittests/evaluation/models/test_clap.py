"""A CLAP of transformers, made by its own classes at tiny sizes."""

import numpy as np
import pytest
import torch

from speechbrain_clsp.evaluation.models.base import read_at
from speechbrain_clsp.evaluation.models.clap import ClapModel
from tests.utils.small import CAPTIONS


@pytest.fixture(scope="module")
def clap_folder(tmp_path_factory):
    """Return a folder with a tiny CLAP of random weights, as transformers saves it."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("clap")
    torch.manual_seed(0)
    audio = {
        "depths": [1, 1],
        "num_attention_heads": [2, 2],
        "num_hidden_layers": 2,
        "patch_embeds_hidden_size": 16,
        "hidden_size": 32,
        "projection_dim": 24,
    }
    text = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "projection_dim": 24,
        "pad_token_id": 1,
    }
    ClapModel(ClapConfig(text_config=text, audio_config=audio, projection_dim=24)).save_pretrained(
        folder
    )
    ClapFeatureExtractor(truncation="rand_trunc").save_pretrained(folder)
    words = sorted({word for caption in CAPTIONS for word in caption.split()})
    vocabulary = {"<unk>": 0, "<pad>": 1} | {word: i + 2 for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def test_a_clap_gets_48_khz_whole_and_the_same_every_time(clap_folder, clips):
    clap = ClapModel(str(clap_folder))
    first = clap.encode_files(clips)
    np.random.seed(7)  # what transformers' random crop draws from
    torch.testing.assert_close(clap.encode_files(clips), first, rtol=0, atol=0)
    torch.testing.assert_close(first.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(clap.encode_files(clips[1:2])[0], first[1])

    inputs = clap.extractor(read_at(clips[1], 48000), sampling_rate=48000, return_tensors="pt")
    with torch.no_grad():
        direct = clap.clap.get_audio_features(input_features=inputs["input_features"])
    direct = torch.nn.functional.normalize(getattr(direct, "pooler_output", direct), dim=-1)
    torch.testing.assert_close(first[1], direct[0], rtol=0, atol=1e-5)
    text = clap.encode_text(CAPTIONS)
    assert text.shape == (3, 24)
    torch.testing.assert_close(clap.encode_text(CAPTIONS[1:2])[0], text[1], rtol=0, atol=1e-5)
    assert clap.revision.startswith("sha256:")
