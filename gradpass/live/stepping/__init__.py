"""A training step while it is looked at: its tapes, its graph, what becomes of its gradients."""
