"""From corpora, or a user's own recordings, to manifests; done once per data set.

Parses published captions, locates local audio, checks both, lists what was left out, and detects
test clips in training data. The scripts in ``recipes/`` and ``clsp prepare`` are built from it.
"""

from speechbrain_clsp.prepare.attributes import Attributes, find_attributes, make_prompts
from speechbrain_clsp.prepare.clip import (
    ClipRecord,
    Record,
    UnusableClipError,
    parse_line,
    read_lines,
)
from speechbrain_clsp.prepare.columns import Columns
from speechbrain_clsp.prepare.corpora import CORPORA, AudioFinder
from speechbrain_clsp.prepare.cuts import clip_from_cut, cut_from_row, write_cuts
from speechbrain_clsp.prepare.entry import ReadOptions
from speechbrain_clsp.prepare.labelled import find_audio, run_labelled, write_corpus
from speechbrain_clsp.prepare.leakage import LeakReport, check_leakage
from speechbrain_clsp.prepare.own_data import prepare_own
from speechbrain_clsp.prepare.splits import Split, prepare_split
from speechbrain_clsp.prepare.splitting import Parts, split_clips

__all__ = [
    "CORPORA",
    "Attributes",
    "AudioFinder",
    "ClipRecord",
    "Columns",
    "LeakReport",
    "Parts",
    "ReadOptions",
    "Record",
    "Split",
    "UnusableClipError",
    "check_leakage",
    "clip_from_cut",
    "cut_from_row",
    "find_attributes",
    "find_audio",
    "make_prompts",
    "parse_line",
    "prepare_own",
    "prepare_split",
    "read_lines",
    "run_labelled",
    "split_clips",
    "write_corpus",
    "write_cuts",
]
