"""One job on one server: started, watched, held when it fails, debugged, patched, restarted.

supervisor           the interface for whoever drives a keeper; status: what it tells
keeper, job_keeper   the process that owns the job, and what it does
spec, state_file     job.json and state.json; work_folder: all that lies beside them
launch, leftovers    starting a keeper, and what a dead one left
children, processes  the job's processes; watch: their signs of life; fence: whom not to outlive
container, affinity  what they are shut in, and the CPUs they get
control, shells      the keeper's ear, and commands beside the job
debug_session        the client's end of them; terminal: the user's
patching, archive    changes before the next start; what stays of a released job
"""
