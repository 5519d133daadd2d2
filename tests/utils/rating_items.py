"""Clips and captions to rate."""

from pathlib import Path

import numpy as np
import soundfile

ITEMS = 6


def write_items(folder: Path) -> Path:
    """Write clips of several formats and items.csv; returns the folder."""
    lines = ["clip,caption,category"]
    for n in range(ITEMS):
        name = f"clip {n}.{('wav', 'flac', 'ogg')[n % 3]}"
        wav = 0.1 * np.sin(2 * np.pi * 200 * np.arange(8000) / 16000)
        soundfile.write(folder / name, wav, 16000)
        category = ("intrinsic", "fusion")[n % 2]
        lines.append(f'{name},"A man, number {n}: <b>caf\u00e9</b>",{category}')
    (folder / "items.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
