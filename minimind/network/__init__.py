"""The model, twice over one set of layers: plain torch for training, and transformers' classes.

Importing transformers' model classes takes longer than importing torch, so what trains on a CPU
does without: it imports :mod:`.language_model`. :mod:`minimind.model` has transformers' classes.
All files are in one folder because ``save_pretrained`` copies a model's file and its siblings.
"""
