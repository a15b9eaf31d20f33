"""What sends and stamps: the measured path."""
