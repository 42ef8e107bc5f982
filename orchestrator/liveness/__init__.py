"""Does a worker work? What it sees of itself, what it tells others, what it does when it does not, and how it ends.

A process that exists is not a worker that works: its connection to the broker may be dead while it looks alive, and its
event loop may stand still. Nothing here knows Celery; what has to be done there is handed in.
"""
