"""Differentiable stand-ins of discrete functions, in plain TensorFlow: they know tensors, and nothing of graphs.

No function here carries a custom gradient (a gradient function of a SavedModel cannot hold one): where the derivative
is that of an implicit equation, the solution goes through stop_gradient and one Newton step puts the derivative back.
"""
