"""Tokens of captions."""

import json

import pytest
import torch

from speechbrain_clsp.dataio.tokenizers import (
    FastTokenizerCaptions,
    SentencePieceCaptions,
    check_token_counts,
    count_tokens,
    train_sentencepiece,
)
from tests.utils.official_model import write_tokenizer as write_letters
from tests.utils.small import CAPTIONS
from tests.utils.text_encoders import FAMILIES, write_tokenizer


def test_tokenizer_pads_and_names_a_missing_model(tmp_path):
    """If this fails, padding is read as text, or a missing file ends in a riddle."""
    train_sentencepiece(CAPTIONS, tmp_path / "t.model", vocab_size=60)
    tokenizer = SentencePieceCaptions(tmp_path / "t.model")
    tokens, padding_mask = tokenizer([CAPTIONS[0], "Slowly"])
    alone, _ = tokenizer(["slowly"])
    assert torch.equal(tokens[1][~padding_mask[1]], alone[0])
    with pytest.raises(FileNotFoundError, match="absent.model"):
        SentencePieceCaptions(tmp_path / "absent.model")
    with pytest.raises(RuntimeError, match="load"):
        SentencePieceCaptions()(["a"])
    (tmp_path / "bad.model").write_text("nonsense")
    with pytest.raises(ValueError, match="bad.model"):
        SentencePieceCaptions(tmp_path / "bad.model")


@pytest.mark.parametrize("family", FAMILIES)
def test_fast_tokenizers_pad_to_the_longest_and_never_truncate(tmp_path, family):
    padding, start, end, _ = FAMILIES[family]
    write_tokenizer(tmp_path, family, CAPTIONS)
    tokens, padding_mask = FastTokenizerCaptions(tmp_path)([CAPTIONS[0], "Slowly"])
    assert tokens.shape == (2, 12)  # nine words and a full stop, start and end
    assert tokens[1, :3].tolist() == [start, 11, end] and (tokens[1, 3:] == padding).all()
    assert torch.equal(padding_mask, torch.arange(12) >= torch.tensor([[12], [3]]))
    # Saved and loaded, as in a model folder, and without the file's own settings.
    FastTokenizerCaptions(tmp_path).save(tmp_path / "saved.json")
    settings = json.loads((tmp_path / "saved.json").read_text())
    (tmp_path / "bare.json").write_text(json.dumps(settings | {"padding": None}))
    for name in ("saved.json", "bare.json"):
        again = FastTokenizerCaptions(tmp_path / name)([CAPTIONS[0], "Slowly"])
        assert torch.equal(again[0], tokens) and torch.equal(again[1], padding_mask)


def test_a_tokenizer_without_padding_is_refused(tmp_path):
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="has no padding token"):
        FastTokenizerCaptions(tmp_path)
    with pytest.raises(FileNotFoundError, match="not loaded"):
        FastTokenizerCaptions()(["a"])


@pytest.mark.parametrize("family", FAMILIES)
def test_unknown_words_of_fast_tokenizers_are_found(tmp_path, family):
    write_tokenizer(tmp_path, family, CAPTIONS)
    texts = ["A male speaker talks.", "A speaker talks 你好, slowly!", "你好"]
    found = FastTokenizerCaptions(tmp_path).find_unknown(texts)
    assert found == ["", "你好", "你好"]


def test_characters_that_a_byte_pair_tokenizer_drops_are_found(tmp_path):
    write_letters(tmp_path)
    found = FastTokenizerCaptions(tmp_path).find_unknown(
        ["a male speaker", "a café 你好", "你好", "\x00"]
    )
    assert found == ["", "é你好", "你好", "\x00"]


def test_captions_are_counted_as_the_tokenizer_pads_them(tmp_path):
    train_sentencepiece(CAPTIONS, tmp_path / "t.model", vocab_size=60)
    tokenizer = SentencePieceCaptions(tmp_path / "t.model")
    counts = count_tokens(tokenizer, CAPTIONS * 100)
    assert counts.tolist() == (~tokenizer(CAPTIONS)[1]).sum(dim=1).tolist() * 100
    assert count_tokens(tokenizer, []).tolist() == []
    check_token_counts(counts, CAPTIONS * 100, int(counts.max()))
    with pytest.raises(ValueError, match="Too long: clip 7 has 9 tokens .'a b'.; at most 8 fit"):
        check_token_counts(torch.tensor([9, 8]), ["a b", ""], 8, lambda n: f"clip {n + 7}")


def test_more_characters_than_a_vocabulary_holds_leave_the_rarest_unknown(tmp_path):
    captions = [chr(0x4E00 + i) + chr(0x4E00 + i // 30) for i in range(300)]
    train_sentencepiece(captions, tmp_path / "t.model", vocab_size=100)
    tokenizer = SentencePieceCaptions(tmp_path / "t.model")
    assert tokenizer.processor.vocab_size() <= 100
    frequent, rare = chr(0x4E00), chr(0x4E00 + 299)
    assert tokenizer.find_unknown([frequent, rare]) == ["", rare]


def test_letters_that_few_of_many_captions_have_are_known(tmp_path):
    texts = ["A woman speaks Russian on the telephone."] * 500 + ["A female voice."]
    train_sentencepiece(texts, tmp_path / "t.model", vocab_size=100)
    assert SentencePieceCaptions(tmp_path / "t.model").find_unknown(texts[-1:]) == [""]


def test_long_captions_are_learned_from_and_none_at_all_are_an_error(tmp_path):
    train_sentencepiece(["a man speaks " * 2000], tmp_path / "t.model", vocab_size=50)
    assert SentencePieceCaptions(tmp_path / "t.model").find_unknown(["a man"]) == [""]
    with pytest.raises(ValueError, match="No tokenizer can be made of 1 captions"):
        train_sentencepiece(["\u2581"], tmp_path / "u.model", vocab_size=50)
