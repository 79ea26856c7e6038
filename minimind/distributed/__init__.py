"""Devices, ranks, and what ranks agree on."""
