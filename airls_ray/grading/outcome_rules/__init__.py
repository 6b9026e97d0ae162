"""Built-in outcome rules, one file each: a new file here is a new name for `method.outcomes`."""
