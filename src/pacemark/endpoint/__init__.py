"""Who is asked: the target, its keys, and what it says of itself."""
