"""Where the pools of a fleet tell how they stand, and where others read it."""
