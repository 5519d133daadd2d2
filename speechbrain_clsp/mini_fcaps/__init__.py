"""MiniFCaps: synthetic speech whose style is known exactly, with captions that are true."""
