"""What runs on each rank."""
