"""Solutions of reasoning-gym's data sets as chains of steps, and the truth of each step by replay."""
