"""How fast the runner and its local endpoint are, measured beside others on the same work."""
