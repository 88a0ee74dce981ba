"""All jobs of a batch: what became of each, and who carries the plan out.

driver               reads the journal, plans, starts, watches; read this first
turns, requests      what starts now; what owners ask for
journal              the record of every job; journal_file, records: how it is written
backend              what the driver needs of whatever runs its jobs; gang: a job on several servers
tokens               who may debug, patch, restart, release and cancel
summary              what the batch has gained; failing_part: what a failed pass left to look at
"""
