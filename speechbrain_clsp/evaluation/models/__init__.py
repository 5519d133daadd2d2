"""Models that can be evaluated side by side."""
