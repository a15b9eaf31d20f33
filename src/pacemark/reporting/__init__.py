"""What people see of a run: the terminal, charts, and one HTML file. Everything is made from a `Summary`."""
