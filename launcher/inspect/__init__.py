"""Looking at runs and sites, and acting on what is seen."""
