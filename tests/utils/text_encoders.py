"""Small text encoders of several families, as transformers saves them."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModel

from tests.utils.small import CAPTIONS

SIZE = {
    "vocab_size": 60,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 100,
}
# Family -> ids of its tokens for padding, start and end, and what its configuration has besides.
FAMILIES = {
    "bert": (0, 2, 3, {"layer_norm_eps": 1e-12}),
    "roberta": (1, 0, 2, {"type_vocab_size": 1}),
    "mpnet": (1, 0, 2, {}),
    "electra": (0, 2, 3, {"embedding_size": 24}),
    "modernbert": (5, 3, 4, {"local_attention": 8}),
}


def encoder_config(family: str) -> dict:
    """Return a small encoder's ``config.json``."""
    padding, start, end, more = FAMILIES[family]
    ids = {"pad_token_id": padding, "bos_token_id": start, "eos_token_id": end}
    if family == "modernbert":
        ids |= {"cls_token_id": start, "sep_token_id": end}
    return {"model_type": family, **SIZE, **ids, **more}


def write_encoder(folder: Path, family: str, captions: list[str] = CAPTIONS) -> torch.nn.Module:
    """Write a random encoder with config.json, safetensors and tokenizer.json; returns it."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(**encoder_config(family))
    encoder = AutoModel.from_config(config).eval()
    with torch.no_grad():  # far from where all tokens look alike
        for parameter in encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    encoder.save_pretrained(folder)
    write_tokenizer(folder, family, captions)
    return encoder


def write_tokenizer(folder: Path, family: str, captions: list[str]) -> None:
    """Write a tokenizer of whole words, with truncation, padding and special tokens."""
    padding, start, end, _ = FAMILIES[family]
    names = (
        ("<pad>", "<s>", "</s>") if family in ("roberta", "mpnet") else ("[PAD]", "[CLS]", "[SEP]")
    )
    special = dict(zip(names, (padding, start, end), strict=True)) | {"[UNK]": 6}
    words = dict.fromkeys(word for text in captions for word in text.lower().rstrip(".").split())
    vocabulary = special | {word: number for number, word in enumerate(words, start=7)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{names[1]} $A {names[2]}",
        special_tokens=[(names[1], start), (names[2], end)],
    )
    # As sentence-transformers saves them: neither is wanted here.
    tokenizer.enable_truncation(max_length=4)
    tokenizer.enable_padding(pad_id=padding, pad_token=names[0], length=30)
    tokenizer.save(str(folder / "tokenizer.json"))
