"""What could not be done now: kept in Postgres, and sent back when a provider answers again."""
