"""Captions as text: which of them a clip gets, and how they are swapped and cleaned."""
