"""Self-training: which responses of a search teach the policy, and what they say of steps."""
