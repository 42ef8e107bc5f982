"""Who answers: agents of a tenant, their prompts, and the walk of one job."""
