"""Submit MiniMind pretraining to Slurm, or run it here; survive preemption; lose nothing."""
