"""`llmyard batch run` from a file to a file, undisturbed and with everybody killed: `make bench-batches`.

    python -m benchmarks.batches [--lines 100000] [--short] [--write docs/benchmarks-batches.md]

The servers are those of `benchmarks.throughput`; the model server is one of its own, whose answer to a question names
the question, and which counts how often each was asked. So a line of the output can be held against its line of the
input, and each call against the ledger.
"""
