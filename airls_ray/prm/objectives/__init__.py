"""Built-in PRM objectives, one file each: a new file here is a new name for `method.prm_objective`."""
