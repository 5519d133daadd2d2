"""CLSP, contrastive language-speech pre-training, as a plugin of SpeechBrain.

Importing this package is cheap: torch and SpeechBrain are imported when ``CLSP`` is first used.

Example
-------
>>> from speechbrain_clsp import CLSP
>>> CLSP.__name__
'CLSP'
"""

__version__ = "0.1.0"
__all__ = ["CLSP", "__version__"]


def __getattr__(name: str):
    if name == "CLSP":
        from speechbrain_clsp.inference.clsp import CLSP

        return CLSP
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
