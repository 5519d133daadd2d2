"""Annotation of speech with fine-grained captions."""
