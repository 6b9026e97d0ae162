"""Built-in searches, one file each: a new file here is a new name for `search.algorithms`."""
