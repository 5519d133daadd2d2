"""Retrieval between speech and captions: exact ranks and their metrics."""
