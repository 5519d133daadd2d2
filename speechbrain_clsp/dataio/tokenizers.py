"""From captions to token ids."""

from __future__ import annotations

import io
import os
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from torch import Tensor

from speechbrain_clsp.utils.checks import join_some, quote
from speechbrain_clsp.utils.content import describe_file
from speechbrain_clsp.utils.files import atomic_write, expand

PAD = 0
SPACE = "▁"  # how SentencePiece writes a space
COUNTED = "LNS"  # letters, numbers, symbols: Unicode categories that a caption has for a reason
RESERVED = 16  # of a vocabulary: more than special tokens and spaces take
LONGEST = 1 << 20  # bytes of a caption that tokenizers are trained on
AT_ONCE = 256  # captions that are tokenized to be counted


class SentencePieceCaptions:
    """A SentencePiece model over lower-cased captions.

    Arguments
    ---------
    path : str or path, optional
        A trained model; without it, call :meth:`load` before use.

    Example
    -------
    >>> path = getfixture("tmp_path") / "tokenizer.model"
    >>> captions = ["A male speaker talks slowly.", "A female speaker whispers softly."]
    >>> train_sentencepiece(captions, path, vocab_size=40)
    >>> tokens, padding_mask = SentencePieceCaptions(path)(["A male speaker", "slowly"])
    >>> tokens.shape == padding_mask.shape, bool((padding_mask == (tokens == 0)).all())
    (True, True)
    """

    FILENAME = "tokenizer.model"  # in a model folder

    def __init__(self, path: str | os.PathLike | None = None) -> None:
        self.processor: sentencepiece.SentencePieceProcessor | None = None
        if path is not None:
            self.load(path)

    def load(self, path: str | os.PathLike) -> None:
        """Read a model file.

        Raises
        ------
        FileNotFoundError
            If there is none.
        ValueError
            If it is not a SentencePiece model.
        """
        path = expand(path)
        if not path.is_file():
            raise FileNotFoundError(f"No tokenizer at {path}")
        try:
            self.processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, TypeError) as error:
            kind = describe_file(path)
            reason = f"it is {kind}" if kind else " ".join(str(error).split())
            raise ValueError(f"{path} is not a SentencePiece model: {reason}") from error

    def save(self, path: str | os.PathLike) -> None:
        """Write the model file."""
        atomic_write(path, self._loaded().serialized_model_proto())

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokenize.

        Arguments
        ---------
        texts : list of str
            B captions.

        Returns
        -------
        tokens : Tensor
            [B, L] int64, padded with 0.
        padding_mask : Tensor
            [B, L] bool, True on padding.

        Raises
        ------
        RuntimeError
            If no model was loaded.
        """
        rows = self._loaded().encode([text.lower() for text in texts], add_eos=True)
        size = max(map(len, rows))
        tokens = torch.tensor([row + [PAD] * (size - len(row)) for row in rows])
        return tokens, tokens == PAD

    def find_unknown(self, texts: Sequence[str]) -> list[str]:
        """Return the characters of each caption that no token stands for, "" if there are none.

        They do not count in an embedding: captions of nothing else all get the same one.
        Punctuation is left out, unless the caption holds nothing that is known.
        """
        processor, found = self._loaded(), []
        for text in texts:
            pieces = processor.encode(text.lower(), out_type=str)
            unknown = [id_ == processor.unk_id() for id_ in processor.encode(text.lower())]
            parts = [piece for piece, is_unknown in zip(pieces, unknown) if is_unknown]
            known = any(p.strip(SPACE) and not is_unknown for p, is_unknown in zip(pieces, unknown))
            found.append(_worth_telling("".join(parts), text, known))
        return found

    def _loaded(self) -> sentencepiece.SentencePieceProcessor:
        if self.processor is None:
            raise RuntimeError("The tokenizer has no model yet: call load(path) first")
        return self.processor


def _worth_telling(unknown: str, text: str, is_anything_known: bool) -> str:
    """Return what of a caption's unknown characters matters."""
    if not is_anything_known:
        return unknown or text
    return "".join(each for each in unknown if unicodedata.category(each)[0] in COUNTED)


def train_sentencepiece(captions: Iterable[str], path: str | os.PathLike, vocab_size: int) -> None:
    """Train a SentencePiece model and write it to ``path`` atomically.

    Byte-pair encoding: on captions of few different words it keeps frequent words whole, where the
    unigram model cuts them up and doubles the number of tokens. ``vocab_size`` is an upper bound;
    small corpora give fewer. Of more different characters than it allows, the rarest are unknown.

    Raises
    ------
    ValueError
        If captions hold no characters.
    """
    model = io.BytesIO()
    texts = _with_known_characters(captions, vocab_size - RESERVED)
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=vocab_size,
            model_type="bpe",
            character_coverage=1.0,  # all that are left, though most of them be rare
            hard_vocab_limit=False,
            max_sentence_length=LONGEST,
            pad_id=PAD,
            unk_id=1,
            bos_id=-1,
            eos_id=2,
            num_threads=1,  # more threads give another model in another run
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ValueError(
            f"No tokenizer can be made of {len(texts)} captions such as {quote(texts[:1])}:"
            f" {' '.join(str(error).split())}"
        ) from error
    atomic_write(path, model.getvalue())


def _with_known_characters(captions: Iterable[str], most: int) -> list[str]:
    """Return captions in lower case, without the rarest of more than so many characters."""
    texts = [caption.lower() for caption in captions]
    counts = Counter(chain.from_iterable(unicodedata.normalize("NFKC", text) for text in texts))
    if len(counts) <= most:
        return texts
    known = {character for character, _ in counts.most_common(most)}
    normalized = (unicodedata.normalize("NFKC", text) for text in texts)
    return ["".join(c if c in known else " " for c in text) for text in normalized]


class FastTokenizerCaptions:
    """The fast tokenizer of a pretrained text encoder: a ``tokenizer.json``, as transformers has.

    It does everything that the file says (case, subwords, the special tokens around a caption), but
    for two things. Captions are never truncated, and always padded on the right to the longest.

    Arguments
    ---------
    path : str or path, optional
        As for :meth:`load`, which must be called before use otherwise.

    Example
    -------
    >>> from tokenizers import Tokenizer, models
    >>> words = models.WordLevel({"<pad>": 0, "<unk>": 1, "Softly.": 2}, unk_token="<unk>")
    >>> path = getfixture("tmp_path") / "tokenizer.json"
    >>> Tokenizer(words).save(str(path))
    >>> FastTokenizerCaptions(path)(["Softly."])
    (tensor([[2]]), tensor([[False]]))
    """

    FILENAME = "tokenizer.json"
    PAIR = ("vocab.json", "merges.txt")  # the older form of RoBERTa's
    PADDING = ("<pad>", "[PAD]")  # what it is called, if the file does not say
    UNKNOWN = ("<unk>", "[UNK]")

    def __init__(self, path: str | os.PathLike | None = None) -> None:
        self.tokenizer: Any = None  # a tokenizers.Tokenizer, imported when it is needed
        self.missing = "the tokenizer was not loaded, call load(path)"
        if path is not None:
            self.load(path)

    def load(self, path: str | os.PathLike) -> None:
        """Read ``tokenizer.json``, or a folder that holds it, or ``vocab.json``, ``merges.txt``.

        Raises
        ------
        FileNotFoundError, ValueError
            As :meth:`SentencePieceCaptions.load`; ValueError also if it has no padding token.
        """
        from tokenizers import Tokenizer

        path = expand(path)
        file = path / self.FILENAME if path.is_dir() else path
        try:
            if file.is_file():
                tokenizer = Tokenizer.from_file(str(file))
            elif path.is_dir() and all((path / name).is_file() for name in self.PAIR):
                tokenizer = self._from_pair(path)
            else:
                raise FileNotFoundError(
                    f"No tokenizer at {path}: {self.FILENAME}, or {' and '.join(self.PAIR)}"
                )
        except OSError:
            raise
        except Exception as error:  # the library raises nothing more specific
            kind = describe_file(file) if file.is_file() else ""
            reason = f"it is {kind}" if kind else " ".join(str(error).split())
            raise ValueError(f"{path} holds no tokenizer: {reason}") from error
        known = [token for token in self.PADDING if tokenizer.token_to_id(token) is not None]
        if tokenizer.padding is not None:
            known = [tokenizer.padding["pad_token"]]
        if not known or tokenizer.token_to_id(known[0]) is None:
            raise ValueError(f"{path} has no padding token, neither {' nor '.join(self.PADDING)}")
        tokenizer.no_truncation()  # too long a caption is an error, not a shorter caption
        tokenizer.enable_padding(pad_id=tokenizer.token_to_id(known[0]), pad_token=known[0])
        self.tokenizer = tokenizer

    def _from_pair(self, folder: Path) -> Any:
        from tokenizers import ByteLevelBPETokenizer
        from tokenizers.processors import RobertaProcessing

        tokenizer = ByteLevelBPETokenizer(*(str(folder / name) for name in self.PAIR))._tokenizer
        ends = ("</s>", 2), ("<s>", 0)
        tokenizer.post_processor = RobertaProcessing(*ends, add_prefix_space=False)
        return tokenizer

    def save(self, path: str | os.PathLike) -> None:
        """Write ``tokenizer.json``."""
        self._loaded().save(str(path))

    def __call__(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Tokenize, as :class:`SentencePieceCaptions`, but with the padding token of the file.

        Raises
        ------
        FileNotFoundError
            If no tokenizer was loaded; the message says what is missing.
        """
        rows = self._loaded().encode_batch(list(texts))
        tokens = torch.tensor([row.ids for row in rows])
        return tokens, torch.tensor([row.attention_mask for row in rows]) == 0

    def find_unknown(self, texts: Sequence[str]) -> list[str]:
        """Do as :meth:`SentencePieceCaptions.find_unknown`."""
        tokenizer, found = self._loaded(), []
        nothing = {tokenizer.token_to_id(token) for token in self.UNKNOWN}
        for text, row in zip(texts, tokenizer.encode_batch(list(texts))):
            known = {
                place
                for id_, (start, stop) in zip(row.ids, row.offsets)
                if id_ not in nothing
                for place in range(start, stop)
            }
            unknown = [c for n, c in enumerate(text) if n not in known and not c.isspace()]
            found.append(_worth_telling("".join(unknown), text, bool(known)))
        return found

    def _loaded(self) -> Any:
        if self.tokenizer is None:
            raise FileNotFoundError(f"Text cannot be encoded: {self.missing}")
        return self.tokenizer


def count_tokens(
    tokenizer: Callable[[Sequence[str]], tuple[Tensor, Tensor]], texts: Sequence[str]
) -> Tensor:
    """Return how many tokens each caption has, [N] int64.

    Arguments
    ---------
    tokenizer : callable
        One of the classes above.
    texts : list of str
        N captions.
    """
    counts = [torch.empty(0, dtype=torch.long)]
    for start in range(0, len(texts), AT_ONCE):
        counts.append((~tokenizer(texts[start : start + AT_ONCE])[1]).sum(dim=1))
    return torch.cat(counts)


def check_token_counts(
    counts: Tensor, texts: Sequence[str], max_tokens: int, name: Callable[[int], str] = str
) -> None:
    """Raise if captions are too long for a text tower; all are named, with their lengths.

    Arguments
    ---------
    counts : Tensor
        [N], as :func:`count_tokens` returns.
    texts : list of str
        The captions.
    max_tokens : int
        The tower's limit.
    name : callable
        Number of a caption -> what messages call it.

    Raises
    ------
    ValueError
        If one has more tokens than that.

    Example
    -------
    >>> check_token_counts(torch.tensor([3, 9]), ["A man.", "A man."], 8, lambda n: f"texts[{n}]")
    Traceback (most recent call last):
    ...
    ValueError: Too long: texts[1] has 9 tokens ('A man.'); at most 8 fit, shorten it
    """
    too_long = (counts > max_tokens).nonzero().flatten().tolist()
    if too_long:
        found = [f"{name(n)} has {int(counts[n])} tokens ({quote(texts[n])})" for n in too_long]
        raise ValueError(f"Too long: {join_some(found)}; at most {max_tokens} fit, shorten it")
