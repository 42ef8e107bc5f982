"""The chaos bench: real processes are killed, stopped and cut off, and what came of it is counted from the outside.

    python -m benchmarks.chaos [--rows 1,2] [--long] [--seed N] [--write docs/chaos.md]

Nothing in the product knows of it. Three records stand apart from everything that is faulted: what was enqueued and
acknowledged (`recorder`), what the model server saw and charged for (`model_server`), and the ledger, read at the end
(`ledger`). `checker` is pure and compares them; a row passes when its verdict has no fault and its own condition holds.

To add a row:

1. Write `row_NN_name.py` with a function `run(bench: Bench) -> Finding` and, as its last line,
   `ROW = Row(NN, "what is done to it", run)`. Its docstring says what the row shows and what it does not.
2. Add that `ROW` to the tuple in `rows.py`.

A row's usual shape, as in `row_06_duplicates.py`:

    with bench.open_yard(YardSettings(lease_seconds=3)) as yard:  # own Postgres, Valkey, model server; all ended after
        yard.start_worker("one"); yard.start_beat()               # forked: 0.3 s; kill(), pause(), resume(), end()
        yard.model.behave("", Behaviour(delay_seconds=0.2))       # by prefix of the question; the longest prefix wins
        yard.send(build_ids("a", bench.choose(300, 3000)))        # recorded: attempted, acknowledged; id = question
        ...faults, by bench.random...
        yard.wait_until_done(60)
        return Finding(yard.check(), notes="what n was", wrong=("what may not be",), missed=("was too slow",))

`wrong` is for what no machine excuses; `missed` is for rates and waits, which `--lenient` only tells.
`bench.choose(short, long)` picks the figure of the form that runs. `yard.rows(sql)` reads the database as its owner.
"""
