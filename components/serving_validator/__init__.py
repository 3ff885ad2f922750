"""ServingValidator: a model is not pushed before a server has answered with it."""
