"""Scripts as a user would write them, for `gradpass demo`."""
