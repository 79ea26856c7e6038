"""Running attempt after attempt of a run until it is over."""
