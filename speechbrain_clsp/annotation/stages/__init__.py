"""The stages of annotation, in their order: caption, verify, filter, select, release."""
