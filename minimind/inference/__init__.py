"""Writing text with trained weights."""
