"""The training loop and what it stands on: ranks, precision, optimiser, checkpoint, stop."""
