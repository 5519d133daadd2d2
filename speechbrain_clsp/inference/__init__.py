"""Pretrained models in use."""
