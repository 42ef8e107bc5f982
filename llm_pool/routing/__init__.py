"""Which deployment is asked, in which order, and who is next."""
