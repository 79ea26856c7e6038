"""What the programs ask of the operating system. Standard library only."""
