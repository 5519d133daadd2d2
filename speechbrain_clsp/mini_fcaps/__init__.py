"""MiniFCaps: synthetic speech whose style is known exactly, with captions that are true.

Planning, synthesis by libespeak-ng and wording of clips, twins and minimal pairs to probe models
with, and acoustic measurements to check them.
"""

from speechbrain_clsp.mini_fcaps.acoustics import AcousticMeasurement, measure_acoustics
from speechbrain_clsp.mini_fcaps.contrasts import plan_contrasts
from speechbrain_clsp.mini_fcaps.corpus import PlannedClip, manifest_row, plan_clips, render
from speechbrain_clsp.mini_fcaps.pairs import write_pairs
from speechbrain_clsp.mini_fcaps.recording import Recording, draw_recording
from speechbrain_clsp.mini_fcaps.style import Style, draw_style
from speechbrain_clsp.mini_fcaps.synthesis import Synthesizer
from speechbrain_clsp.mini_fcaps.voices import VOICES, Voice
from speechbrain_clsp.mini_fcaps.wording import fine_caption, global_caption, swap_tables

__all__ = [
    "VOICES",
    "AcousticMeasurement",
    "PlannedClip",
    "Recording",
    "Style",
    "Synthesizer",
    "Voice",
    "draw_recording",
    "draw_style",
    "fine_caption",
    "global_caption",
    "manifest_row",
    "measure_acoustics",
    "plan_clips",
    "plan_contrasts",
    "render",
    "swap_tables",
    "write_pairs",
]
