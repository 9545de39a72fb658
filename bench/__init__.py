"""Measures the service beside its peers, on one machine in one run: scripts/bench."""
