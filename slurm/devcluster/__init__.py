"""A throwaway Slurm of several pretend nodes on one Debian or Ubuntu machine."""
