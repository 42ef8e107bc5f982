"""What grows with the work that waits, what with the calls in flight, how long a start takes, and what rest costs.

    python -m benchmarks.growth [--short] [--parts backlog,in-flight,start-up,idle] [--write docs/benchmarks-growth.md]

Each part is a file with a function that takes a `Scale` and gives back a `Section`; `__main__` lists them. The servers
and the model are those of `benchmarks.throughput`.
"""
