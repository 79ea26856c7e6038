"""What a checkpoint holds, how it is kept, and what is checked before a resume."""
