"""Named targets, one JSON file each, in the form `ort_optim probe --json` writes."""
