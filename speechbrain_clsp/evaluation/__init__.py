"""Retrieval, zero-shot classification, and the reports made of them."""
