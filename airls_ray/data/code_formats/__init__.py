"""Built-in forms of programs with tests, one file each: a new file here is a new name for `task.format`."""
