"""CLSP, contrastive language-speech pre-training, as a plugin of SpeechBrain.

Importing this package is cheap: torch and SpeechBrain are imported when a name is first used.

Example
-------
>>> from speechbrain_clsp import CLSP, StyleReward
>>> CLSP.__name__, StyleReward.__name__
('CLSP', 'StyleReward')
"""

from typing import Any

__version__ = "0.2.0"
__all__ = ["CLSP", "StyleReward", "__version__"]


def __getattr__(name: str) -> Any:
    if name not in ("CLSP", "StyleReward"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from speechbrain_clsp import inference

    return getattr(inference, name)
