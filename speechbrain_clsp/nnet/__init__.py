"""Losses, optimizers and schedules of contrastive training."""
