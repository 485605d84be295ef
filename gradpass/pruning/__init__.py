"""What is dead in a model, and a model without it."""
