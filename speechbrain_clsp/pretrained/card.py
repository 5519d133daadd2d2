"""Model cards: what the page of a model says on the Hub, for people and for its search."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData

from speechbrain_clsp import __version__
from speechbrain_clsp.utils.files import atomic_write

CARD = "README.md"
TAGS = [
    *("speechbrain", "CLSP", "arxiv:2601.03065", "speech", "speaking-style"),
    *("contrastive-learning", "audio-text-retrieval", "zero-shot-audio-classification"),
]
TEXT = """# {name}
A contrastive language-speech model (CLSP): it embeds speech, and English descriptions of how it
is spoken, in one space. Made with speechbrain-clsp {version}.

```python
from speechbrain_clsp import CLSP

clsp = CLSP.from_pretrained("path/to/{name}")
clsp.score_file("a.wav", ["A man whispers.", "A woman speaks loudly."])
```

Recordings of any sample rate are converted to 16 kHz mono.
"""
# Files that make opening a folder run code; the latter's base model may have the former.
RUN = ("hyperparams.yaml", "adapters.safetensors")
TRUST = """`hyperparams.yaml` names the Python classes to build, so load only folders that you
trust, and a repository of the Hub with `trust_hparams=True` once you have read that file.
"""


def write_card(
    folder: str | os.PathLike,
    metrics: Mapping[str, float | Sequence[float | None]] | None = None,
    origin: str = "",
    dataset: str = "test",
) -> None:
    """Write a model folder's ``README.md``, with the metadata that the Hub reads.

    Arguments
    ---------
    folder : str or path
        The model folder, whose name is the model's; the card says whether opening it runs code.
    metrics : dict, optional
        For each name a value, or a value and the ends of its 95 % interval.
    origin : str
        A paragraph on data and license.
    dataset : str
        What the metrics were measured on.

    Example
    -------
    >>> folder = getfixture("tmp_path") / "my_clsp"
    >>> folder.mkdir()
    >>> write_card(folder, {"R@1": (0.84, 0.797, 0.88)}, dataset="MiniFCaps, test")
    >>> lines = (folder / "README.md").read_text().splitlines()
    >>> lines[2], lines[-1]
    ('library_name: speechbrain', '| R@1 | 0.84 | 0.797 to 0.88 |')
    """
    folder = Path(folder)
    values = {
        name: tuple(value) if isinstance(value, Sequence) else (value,)
        for name, value in (metrics or {}).items()
    }
    results = [
        EvalResult("zero-shot-audio-classification", dataset, dataset, name, value[0])
        for name, value in values.items()
    ]
    data = ModelCardData(
        language="en",
        library_name="speechbrain",
        pipeline_tag="feature-extraction",
        tags=TAGS,
        model_name=folder.name if results else None,
        eval_results=results or None,
    )
    parts = [f"---\n{data.to_yaml()}\n---", TEXT.format(name=folder.name, version=__version__)]
    if any((folder / name).is_file() for name in RUN):
        parts.append(TRUST)
    if origin:
        parts.append(f"{origin}\n")
    if values:
        rows = "".join(f"| {name} | {_row(value)} |\n" for name, value in values.items())
        parts.append(
            f"Measured on {dataset}:\n\n| metric | value | 95 % interval |\n|---|---|---|\n{rows}"
        )
    atomic_write(folder / CARD, "\n".join(parts).encode())


def _row(value: Sequence[float | None]) -> str:
    """Return a value and its interval as two cells."""
    shown, *ends = (f"{each:.4g}" for each in value if each is not None)
    return f"{shown} | {' to '.join(ends)}"
