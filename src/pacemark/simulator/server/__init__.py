"""The embedded endpoint behind HTTP."""
