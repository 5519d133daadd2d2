"""People's ratings of captions: what they rate on a page or on a sheet, and one store for both.

A rating says what one rater gave one caption of one clip in one dimension, on a stated scale.
Tables of how alike clips sound are read here, too. Statistics over ratings are in
:mod:`speechbrain_clsp.evaluation`, the page is served by :mod:`speechbrain_clsp.serve.rating`.
"""

from speechbrain_clsp.ratings.alike import Choices, read_alike
from speechbrain_clsp.ratings.scales import SCORES, SLIDER, Scale, dimensions
from speechbrain_clsp.ratings.sheet import read_sheet, write_sheet
from speechbrain_clsp.ratings.store import Rating, RatingStore
from speechbrain_clsp.ratings.table import Ratings, read_ratings, write_table
from speechbrain_clsp.ratings.task import RatedBeforeError, RatingTask

__all__ = [
    "SCORES",
    "SLIDER",
    "Choices",
    "RatedBeforeError",
    "Rating",
    "RatingStore",
    "RatingTask",
    "Ratings",
    "Scale",
    "dimensions",
    "read_alike",
    "read_ratings",
    "read_sheet",
    "write_sheet",
    "write_table",
]
