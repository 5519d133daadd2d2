"""Captions as text: which of them a clip gets, their cleanup, and false versions of them.

Nothing here reads audio or manifests; a manifest row is a mapping.
"""

from speechbrain_clsp.captions.cleanup import clean_caption, repair_accent
from speechbrain_clsp.captions.perturbation import (
    AttributeSwap,
    GenderSwap,
    OneOf,
    Wording,
    between_forms,
    between_values,
    read_tables,
)
from speechbrain_clsp.captions.policies import (
    FewDraws,
    OneFineCaption,
    TwoCaptions,
    WithHardNegatives,
    evaluation_captions,
)
from speechbrain_clsp.captions.temporal import (
    DirectionSwap,
    OrderSwap,
    PlaceSwap,
    english_tables,
    reorder_sentences,
)

__all__ = [
    "AttributeSwap",
    "DirectionSwap",
    "FewDraws",
    "GenderSwap",
    "OneFineCaption",
    "OneOf",
    "OrderSwap",
    "PlaceSwap",
    "TwoCaptions",
    "WithHardNegatives",
    "Wording",
    "between_forms",
    "between_values",
    "clean_caption",
    "english_tables",
    "evaluation_captions",
    "read_tables",
    "reorder_sentences",
    "repair_accent",
]
