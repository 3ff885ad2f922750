"""What a process of ours sets up before the libraries work: environment, logs, Beam."""
