"""What runs, with which settings, and how it is run on this machine."""
