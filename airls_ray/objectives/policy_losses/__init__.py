"""Built-in policy losses, one file each: a new file here is a new name for `method.policy_loss`."""
