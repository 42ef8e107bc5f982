"""Suspects: jobs that may kill their worker, as one died that had them. Each is asked in a process of its own.

The worker keeps the claim and records the outcome; only the call to the pool, which is where foreign code runs, is
made elsewhere. `suspects` is the worker's side; `warden` forks a process for each suspect, `ward` is the life of one.
"""
