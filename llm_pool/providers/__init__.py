"""One file for each dialect that models are spoken to in."""
