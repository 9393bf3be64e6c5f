"""The benchmark runner: a process for each implementation, rounds in alternation, the table, its JSON and its plot."""
