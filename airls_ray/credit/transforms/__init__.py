"""Built-in credit transforms, one file each: a new file here is a new name for `method.step_transforms`."""
