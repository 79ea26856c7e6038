"""Container runtimes and images."""
