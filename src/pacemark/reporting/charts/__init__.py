"""Charts: one definition for the page, SVG, PNG and the notebook."""
