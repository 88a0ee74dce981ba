"""Jobs and servers to a plan: who runs where, when, on which devices.

planner              the queue from beginning to end; read this first
search               shorter plans by other orders of equal jobs
classes, kinds       servers for whole machines and for fragments; what a job is
timeline             reservations of whole machines
fragments, room      the queue of fragments; when one fits
capacity             what is free at one moment
scoring              which server and device a fragment gets
fragmentation        how much of what is free jobs to come can use; rooms: the same worked out fast
offline              packing a list that is known as a whole
"""
