"""DataGate: no training on data that ExampleValidator found fault with."""
