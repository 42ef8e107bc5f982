"""For scripts: one client configured by the environment, with a queue for what could not be answered."""
