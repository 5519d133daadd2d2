"""The whole line, from files to retrieval, on eight clips that a model must be able to learn."""

from tests.utils.buzzes import fit, new_brain, write_buzzes


def test_eight_clips_are_learnt_by_heart(tmp_path):
    """If this fails, some part between the audio file and the optimizer step is broken."""
    brain = new_brain(epochs=90)
    fit(brain, write_buzzes(tmp_path))
    stats = brain.train_loggers[0].stats["valid_stats"]
    assert stats["global_R@1"] == 1.0 and stats["fine_R@1"] == 1.0, stats
