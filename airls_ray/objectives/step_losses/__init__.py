"""Built-in step losses, one file each: a new file here is a new name for `supervised_prm.step_loss`."""
