"""What our trainer is measured against, each in its own small program."""
