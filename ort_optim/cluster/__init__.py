"""Many models on many machines: what is to be done, on what, where and when, and how it is kept.

documents, units        strict reading of YAML, sizes and durations
jobs, servers           what is to be done, and on what
plan                    who runs where and when: what the planner gives and the driver executes
capacity, room          what is free, and what fits there
kinds, classes          whole machines or a fragment; which servers are for which
planner                 jobs and servers -> plan. Read this first
timeline                class one: reservations of whole machines
fragments, links        class two: the queue of fragments; who waits for whom
search                  other orders of the jobs, for a shorter plan
scoring, fragmentation  which server and device a fragment gets
"""
