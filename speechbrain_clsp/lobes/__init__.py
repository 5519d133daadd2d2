"""Building blocks of the two towers, each usable as a plain ``nn.Module``."""
