"""What to choose: searches, curves, fits, plans and comparisons. Levels in, answers out."""
