"""Which curves there are, and how they are drawn."""
