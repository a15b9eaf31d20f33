"""One run, conducted: from a target to a folder with every request and a report."""
