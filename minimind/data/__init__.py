"""From jsonl text to the rows that a model trains on.

``corpus`` (jsonl → token store) → ``packing`` (documents → rows) → ``sampler`` (rows →
micro-steps) → ``loader`` (micro-steps → tensors). Importing this package loads nothing.
"""
