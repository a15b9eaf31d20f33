"""Commands that are more than a few lines each; `pacemark.cli` has the list of all."""
