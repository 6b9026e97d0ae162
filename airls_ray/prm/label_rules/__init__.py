"""Built-in label rules, one file each: a new file here is a new name for `supervised_prm.labels`."""
