"""Models in files: folders in SpeechBrain's format, the published form, and the Hugging Face Hub.

Loading, saving, conversion between the two forms, and publishing. What comes out are modules and a
tokenizer; :class:`~speechbrain_clsp.inference.clsp.CLSP` makes a model of them.
"""

from speechbrain_clsp.pretrained.adapters import Base, adapt, find_adapters, save_adapters
from speechbrain_clsp.pretrained.background import (
    find_background,
    read_background,
    write_background,
)
from speechbrain_clsp.pretrained.card import write_card
from speechbrain_clsp.pretrained.conversion import convert_official, export_official, merge_adapters
from speechbrain_clsp.pretrained.folder import FolderPretrainer, load_folder, save_model_folder
from speechbrain_clsp.pretrained.hub import (
    load_official,
    load_pretrained_encoder,
    load_pretrained_speech_encoder,
    load_pretrained_text_encoder,
    publish,
    read_do_normalize,
    read_encoder_config,
)

__all__ = [
    "Base",
    "FolderPretrainer",
    "adapt",
    "convert_official",
    "export_official",
    "find_adapters",
    "find_background",
    "load_folder",
    "load_official",
    "load_pretrained_encoder",
    "load_pretrained_speech_encoder",
    "load_pretrained_text_encoder",
    "merge_adapters",
    "publish",
    "read_background",
    "read_do_normalize",
    "read_encoder_config",
    "save_adapters",
    "save_model_folder",
    "write_background",
    "write_card",
]
