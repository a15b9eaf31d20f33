"""How it is said: one API a file, with its request bodies and its answers."""
