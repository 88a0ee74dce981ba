"""What `optimize --work DIR` keeps, so that a run that was ended goes on after its last step.

    Steps         the pipeline takes each step from here: as it was kept, or done now and kept
    WorkFolder    the files of DIR, each written whole or not at all, checked when it is read

What lies in DIR, for those who watch over a run:

    progress         touched whenever ONNX Runtime answers and whenever a stage or step begins
    steps.json       {"version": 1, "last_finished_step": "rewrite", "steps": [{"step": "inputs",
                     "finished": UTC in ISO 8601, "seconds": 1.5, "taken_over": false}, ...]}: the
                     steps of the latest run that finished any, oldest first
    failures.json    which passes failed, and whether regions did, on what model (only where one
                     did): it is about the latest run alone
    smallest.onnx    the smallest part that still fails, where `ort_optim.reduction` was asked for
                     it, with a line on it in smallest.txt, and inputs in smallest.npz
    STEP.json        what a step found, with the key that it is valid for
    SHA256.onnx, .npz  models and tensors that the steps refer to, named by their content

The steps are inputs, rewrite, time, tile and save; the last one only means that OUT is written.
Two runs in one DIR at once do no harm but to each other's time; steps.json and failures.json are
then about one of them.
"""

from ort_optim.checkpoints.folder import WorkFolder
from ort_optim.checkpoints.steps import Steps

__all__ = ["Steps", "WorkFolder"]
