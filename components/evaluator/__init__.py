"""Evaluator: TFX's, and a verdict of our own gates in one small JSON file."""
