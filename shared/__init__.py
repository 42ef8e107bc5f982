"""What both packages use: errors, settings, clock, tables, connections. Nothing with a single user lives here."""
