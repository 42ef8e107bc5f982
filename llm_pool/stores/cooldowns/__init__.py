"""Who is left alone for a while: one protocol, kept in this process or in Redis for a whole fleet."""
