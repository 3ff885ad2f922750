"""The small data sets that trainings of the tests take."""

from tests.training_data import digits, stripes

__all__ = ["digits", "stripes"]
