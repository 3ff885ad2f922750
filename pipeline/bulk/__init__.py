"""Bulk inference on many images with a pushed model."""
