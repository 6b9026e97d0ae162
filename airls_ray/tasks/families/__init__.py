"""The built-in tasks, a file each: what it calls `TASK` is made with the task's section."""
