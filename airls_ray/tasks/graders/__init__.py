"""Built-in graders, one file each: a new file here is a new name for `task.grader`."""
