"""Other systems that runs are handed to."""
