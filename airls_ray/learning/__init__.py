"""Learning on Arrow tables: engines, the policy update, the discriminator update and scoring."""
