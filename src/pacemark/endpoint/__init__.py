"""Who is asked: the target, its keys, and the dialects it may speak."""
