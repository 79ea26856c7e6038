"""What only ``minimind data`` and ``minimind tokenizer`` use."""
