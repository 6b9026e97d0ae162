"""Built-in forms of data, one file each: a new file here is a new name for `task.format`."""
