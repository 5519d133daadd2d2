"""The stages of annotation: each works on the records of the one before; release joins them.

A stage module holds its settings and its work on one clip; ``annotation/pipeline.py`` runs stages
over files of records.
"""

STAGES = ("caption", "verify", "filter", "select")
__all__ = ["STAGES"]
