"""From jsonl text to the rows that a model trains on.

``inputs`` (paths → files) → ``rows`` (files → lines) → ``tokenize`` (lines → token store) →
``packing`` (documents → rows; ``mixture``: of several sources) → ``sampler`` (rows →
micro-steps) → ``dataloader`` (micro-steps → tensors). Importing this package loads nothing.
"""
