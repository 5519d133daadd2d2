"""Models in files: folders in SpeechBrain's format, the published form, and the Hugging Face Hub.

Loading, saving, conversion between the two forms, and publishing. What comes out are modules and a
tokenizer; :class:`~speechbrain_clsp.inference.clsp.CLSP` makes a model of them.
"""

from importlib import import_module
from typing import Any

_NAMES = {
    "FolderPretrainer": "folder",
    "convert_official": "conversion",
    "export_official": "conversion",
    "load_folder": "folder",
    "load_official": "hub",
    "load_pretrained_encoder": "hub",
    "publish": "hub",
    "save_model_folder": "folder",
}
__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_NAMES[name]}"), name)
