"""Many models on many machines: what is to be done, on what, where and when, and how it is kept.

documents, units     strict reading of YAML, sizes and durations
jobs, links          what is to be done, and what waits for what
servers              on what
plan                 who runs where and when: what the planner gives and the driver executes
states               the states a job can be in, and what may follow what

placement/           jobs and servers -> plan
keeping/             one job: started, watched, held, debugged, restarted; knows no other jobs
submitting/          all jobs of a batch: the journal, and the driver that carries out the plan
ray/                 jobs on the servers of a Ray cluster
"""
