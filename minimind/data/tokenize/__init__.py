"""From text to a token store, built once and taken up again after an interruption."""
