"""What `train.problem_sampler` names: a file each, whose first line `airls-ray list` shows."""
