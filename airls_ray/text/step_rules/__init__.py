"""Built-in step rules, one file each: a new file here is a new name for `task.steps`."""
