"""Bulk work: a file's lines become jobs, are fed to the workers in slices, and come back as a file in their order."""
