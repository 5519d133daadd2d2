"""Minimal pairs of MiniFCaps: a clip, a true caption, and one that is false in one thing.

They are written from styles, so that they are false by construction. ``side`` says what is
exchanged: ``captions`` (of one clip), ``clips`` (for one caption) or ``texts`` (a caption, one that
says the same, and one that does not).
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from speechbrain_clsp.mini_fcaps.contrasts import Contrast, Thing, variations
from speechbrain_clsp.mini_fcaps.corpus import PlannedClip, with_fewer_details
from speechbrain_clsp.mini_fcaps.style import Style
from speechbrain_clsp.mini_fcaps.wording import fine_caption, global_caption

N_PARAPHRASES, N_REORDERED = 3, 2  # pairs per clip
Pair = dict[str, str]


def write_pairs(
    clips: Sequence[PlannedClip], contrasts: Sequence[Contrast], seed: int
) -> list[Pair]:
    """Write the minimal pairs of clips and of their contrasts.

    Arguments
    ---------
    clips : sequence of PlannedClip
        The clips.
    contrasts : sequence of Contrast
        Those of :func:`~speechbrain_clsp.mini_fcaps.contrasts.plan_contrasts`.
    seed : int
        Of the wording.

    Returns
    -------
    list of dict
        With ``kind``, ``attribute``, ``side``, ``anchor``, ``true`` and ``false``; clips stand as
        their ids. Kinds are those of :mod:`~speechbrain_clsp.mini_fcaps.contrasts`, and among texts
        ``paraphrase`` (another wording) and ``sentences`` (in another order), whose attribute says
        what the false text differs in.

    Example
    -------
    >>> from speechbrain_clsp.mini_fcaps.corpus import plan_clips
    >>> clips = plan_clips({"test": 1, "valid": 0, "train": 0}, seed=0)
    >>> pair = write_pairs(clips, [], seed=0)[1]
    >>> pair["kind"], pair["attribute"], pair["side"], pair["anchor"]
    ('attribute', 'accent', 'captions', 'test_00000')
    >>> pair["true"].split(".")[0]
    'A female voice with a Caribbean accent speaks in a deep, lively tone'
    >>> pair["false"].split(".")[0]
    'A female voice with a Scottish accent speaks in a deep, lively tone'
    """
    pairs: list[Pair] = []
    for clip in clips:
        pairs += _caption_pairs(clip, random.Random(f"{seed} pairs {clip.id}"))
    for number, contrast in enumerate(contrasts):
        pairs += _contrast_pairs(contrast, random.Random(f"{seed} pairs {number}"))
    return pairs + list(_text_pairs(clips, random.Random(f"{seed} texts")))


def _caption_pairs(clip: PlannedClip, generator: random.Random) -> Iterator[Pair]:
    """Exchange the caption of a clip, once for each thing that can differ."""
    seed = generator.getrandbits(64)
    for thing, styles in variations(clip.style).items():
        write = _Writer(thing, generator, seed)
        true, false = write(clip.style), write(generator.choice(styles))
        yield _pair(*thing, "captions", clip.id, true, false)


def _contrast_pairs(contrast: Contrast, generator: random.Random) -> Iterator[Pair]:
    """Exchange the clip of a caption and the caption of a clip, for both clips."""
    one, other = contrast.clips
    things = [(contrast.kind, contrast.attribute)]
    if contrast.kind == "order":
        things.append(("direction", contrast.attribute))
    for thing in things:
        says_place = one.style.change_place == other.style.change_place
        write = _Writer(thing, generator, generator.getrandbits(64), says_place)
        texts = write(one.style), write(other.style)
        for this, that in ((0, 1), (1, 0)):
            ids = contrast.clips[this].id, contrast.clips[that].id
            yield _pair(*thing, "clips", texts[this], *ids)
            yield _pair(*thing, "captions", ids[0], texts[this], texts[that])


def _text_pairs(clips: Sequence[PlannedClip], generator: random.Random) -> Iterator[Pair]:
    """Set captions that say the same against minimal pairs, the rarest things first."""
    counts = {"paraphrase": Counter[Thing](), "sentences": Counter[Thing]()}
    for clip in clips:
        possible = variations(clip.style)
        for kind, number in (("paraphrase", N_PARAPHRASES), ("sentences", N_REORDERED)):
            things = [thing for thing in possible if (kind, thing[0]) != ("sentences", "direction")]
            generator.shuffle(things)
            for thing in sorted(things, key=lambda thing: counts[kind][thing])[:number]:
                counts[kind][thing] += 1
                seed, is_fine = generator.getrandbits(64), kind == "sentences"
                write = _Writer(thing, generator, seed, is_fine=is_fine)
                anchor, false = write(clip.style), write(generator.choice(possible[thing]))
                if kind == "paraphrase":
                    true = write.again(clip.style, anchor)
                else:
                    true = _reordered(anchor, generator)
                about = thing[1] if thing[0] == "attribute" else thing[0]
                yield _pair(kind, about, "texts", anchor, true, false)


class _Writer:
    """Writes captions with the same choices for different styles, in the scope of a thing."""

    def __init__(
        self,
        thing: Thing,
        generator: random.Random,
        seed: int,
        says_place: bool = True,
        is_fine: bool = False,
    ) -> None:
        self.kind, self.seed, self.says_place = thing[0], seed, says_place
        # Attributes stand in captions of both kinds, a direction in global ones only.
        is_global = self.kind == "direction" or (
            self.kind == "attribute" and generator.random() < 0.5
        )
        self.is_fine = is_fine or not is_global

    def __call__(self, style: Style) -> str:
        generator = random.Random(self.seed)
        if not self.is_fine:
            return global_caption(style, generator)
        if self.kind not in ("place", "event"):
            style = with_fewer_details(style, generator)
            if not self.says_place:
                style = replace(style, change_place=None)
        return fine_caption(style, generator)

    def again(self, style: Style, caption: str) -> str:
        """Return another caption of the style."""
        while (text := self(style)) == caption:
            self.seed += 1
        return text


def _reordered(caption: str, generator: random.Random) -> str:
    """Return a caption's sentences in another order."""
    sentences = caption.removesuffix(".").split(". ")
    while ". ".join(sentences) + "." == caption:
        generator.shuffle(sentences)
    return ". ".join(sentences) + "."


def _pair(kind: str, attribute: str, side: str, anchor: str, true: str, false: str) -> Pair:
    return {
        "kind": kind,
        "attribute": attribute,
        "side": side,
        "anchor": anchor,
        "true": true,
        "false": false,
    }
