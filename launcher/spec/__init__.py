"""What a run is: its spec, its folder, its options, and whom it trusts."""
