"""Prompts from templates of the package and of users."""

import pytest

from speechbrain_clsp.annotation.prompts import caption_prompt, fill, template_text


def test_prompts_speak_of_labels_only_where_there_are_some(tmp_path):
    row = {
        "accent": "Scottish",
        "speaking_rate": "fast speed",
        "situational_tags": ["angry", "sad"],
    }
    with_labels, without = caption_prompt(row), caption_prompt({})
    for text in ("accent: Scottish", "speaking rate: fast speed", "angry, sad"):
        assert text in with_labels and text not in without
    assert "${" not in with_labels + without and "labels" not in without
    assert "pitch:" not in caption_prompt({**row, "pitch": "high-pitched"})  # not a published one
    (tmp_path / "mine.txt").write_text("Only this. ${labels}")
    assert caption_prompt({}, tmp_path / "mine.txt") == "Only this. "
    (tmp_path / "wrong.txt").write_text("${label}")
    with pytest.raises(ValueError, match="label.*known names are"):
        caption_prompt({}, tmp_path / "wrong.txt")
    with pytest.raises(FileNotFoundError, match="caption.txt"):
        template_text("nowhere.txt")
    assert fill("verify_verdict.txt").strip()
