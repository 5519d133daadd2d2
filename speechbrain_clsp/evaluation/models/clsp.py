"""A CLSP of this package, or in the published form."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from torch import Tensor

from speechbrain_clsp.dataio.checks import check_lengths
from speechbrain_clsp.evaluation.models.base import MOVING, state_of
from speechbrain_clsp.inference.clsp import CLSP
from speechbrain_clsp.pretrained.hub import PINS
from speechbrain_clsp.utils.files import expand


class ClspModel:
    """A CLSP that is open already.

    Arguments
    ---------
    clsp : CLSP
        The model.
    model, revision : str
        What it is and in which state; see :class:`~speechbrain_clsp.evaluation.models.base.Model`.
    """

    is_bound = False

    def __init__(self, clsp: CLSP, model: str, revision: str) -> None:
        self.clsp, self.model, self.revision = clsp, model, revision

    @classmethod
    def open(
        cls,
        source: str,
        revision: str | None = None,
        device: str = "cpu",
        trust_hparams: bool = False,
    ) -> ClspModel:
        """Open a folder, or a Hub repository at a revision, which defaults to the pinned one."""
        clsp = CLSP.from_pretrained(
            source, revision, {"device": device}, trust_hparams=trust_hparams
        )
        if expand(source).is_dir():
            return cls(clsp, source, state_of(source))
        pinned = PINS[source].revision if source in PINS else MOVING
        return cls(clsp, source, revision or pinned)

    def check_texts(self, texts: Sequence[tuple[str, str]], where: str) -> None:
        """Raise ValueError if captions are too long; ``texts`` are their names and themselves."""
        tower, tokenizer = self.clsp.mods.text_tower, self.clsp.hparams.tokenizer
        check_lengths(texts, tokenizer, tower.max_tokens, where)

    def encode_files(self, paths: Sequence[str]) -> Tensor:
        """Embed audio files of any rate and length."""
        return self.clsp.encode_files(list(paths), progress=False).float().cpu()

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Embed captions."""
        return self.clsp.encode_text(list(texts)).float().cpu()

    def cut_texts(self, texts: Sequence[str]) -> list[str]:
        """Return texts, those that are too long for the model without their end."""
        longest = self.clsp.mods.text_tower.max_tokens

        def count(text: str) -> int:
            return int((~self.clsp.hparams.tokenizer([text])[1]).sum())

        return [
            # At least one character: a longer start has no fewer tokens.
            text[: bisect_right(range(1, len(text)), longest, key=lambda n: count(text[:n]))]
            if count(text) > longest
            else text
            for text in texts
        ]

    def find_unknown(self, texts: Sequence[str]) -> list[str]:
        """Return the characters of each caption that the model does not know, "" for none."""
        return self.clsp.find_unknown(texts)
