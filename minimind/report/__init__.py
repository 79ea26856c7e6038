"""``minimind report``: a run as one page. Reads the run folder only, and imports no torch."""
