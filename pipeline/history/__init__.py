"""Past runs, read from ML Metadata, and what is done with them."""
