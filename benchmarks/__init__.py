"""Measurements of ours beside peers, in one run on one machine; each prints a table with date and versions."""
