"""``minimind report``: runs as one page, or as one that follows them. Imports no torch."""
