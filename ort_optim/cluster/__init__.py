"""Many models on many machines: what is to be done, on what, where and when, and how it is kept.

documents, units     strict reading of YAML, sizes and durations
jobs, servers        what is to be done, and on what
plan                 who runs where and when: what the planner gives and the driver executes
capacity             what is free
classes              which servers are class one (whole machines) and class two (fragments)
planner              the queue, reservations, backfill: jobs and servers -> plan
"""
