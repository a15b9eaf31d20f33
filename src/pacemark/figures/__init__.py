"""What came back, as figures: definitions, windows, intervals, budgets and verdicts. Trace in, level out."""
