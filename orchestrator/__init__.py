"""Decides what is run and what becomes of it."""
