"""How shadows follow through ops: one file a theme, one class a rule; see `base`."""
