"""From manifests and audio files to batches."""
