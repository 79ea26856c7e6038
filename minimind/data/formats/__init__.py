"""The formats of text files: one registry, and a reader for each."""
