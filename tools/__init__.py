"""What those who develop this project run, and its users do not."""
