"""Jobs on the servers of a Ray cluster.

ray_backend          the only module that imports Ray
actor_backend        the driver's backend, with an actor for each process of a job
door                 what it needs of a cluster; ray_slots: what it knows of each job
ray_actor            what runs on the job's server
ray_servers          the servers, from what Ray says of its nodes
transfer             models and outputs without a shared file system
"""
