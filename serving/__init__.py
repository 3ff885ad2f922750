"""TF Serving's API on this machine, and a client for any TF Serving."""
