"""Targets of this process: models, functions and training steps, before and while they are trained."""
