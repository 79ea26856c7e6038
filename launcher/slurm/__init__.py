"""What Slurm is asked, and what it answers."""
