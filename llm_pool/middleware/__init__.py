"""One file for each concern around a request or an attempt; `pool.py` says in which order."""
