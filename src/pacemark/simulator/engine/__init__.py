"""The engine of the embedded endpoint, in virtual time."""
