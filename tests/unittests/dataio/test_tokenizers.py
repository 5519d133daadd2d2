"""Tokens of captions."""

import pytest
import torch

from speechbrain_clsp.dataio.tokenizers import SentencePieceCaptions, train_sentencepiece
from tests.utils.small import CAPTIONS


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
