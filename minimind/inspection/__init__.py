"""What ``minimind inspect`` finds out about files and folders."""
