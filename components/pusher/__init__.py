"""Pusher: TFX's, made atomic."""
