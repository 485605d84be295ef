"""Measurements on models that nobody tuned gradpass to."""
