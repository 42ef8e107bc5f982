"""What calls cost, what may be spent, and who is told when it is nearly gone."""
