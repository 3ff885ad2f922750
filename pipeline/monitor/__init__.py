"""Compares what a server was asked with what the model was trained on."""
