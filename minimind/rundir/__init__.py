"""What a run leaves in its folders: the contract between training, launcher and report.

Standard library only."""
