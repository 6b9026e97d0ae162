"""Built-in rewards, one file each: a new file here is a new name for `task.reward`."""
