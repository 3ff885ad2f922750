"""BaselineModel: the model in production now, for the Evaluator to compare with."""
