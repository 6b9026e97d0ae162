"""Built-in trackers, one file each: a new file here is a new name for `train.trackers`."""
