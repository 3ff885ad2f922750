"""Muon for convolutions, and SGD for all other variables. Keras's own Muon leaves convolutions to AdamW."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

# Of the polynomial x + x³ + x⁵ that draws all singular values towards 1 in a few rounds: Jordan et al.,
# "Muon: An optimizer for hidden layers in neural networks" (2024).
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_EPSILON = 1e-7


class MuonSGD(keras.optimizers.SGD):
    """SGD with Nesterov momentum, whose steps for the kernels of convolutions are orthogonal matrices.

    After Jordan's record for CIFAR-10 (github.com/KellerJordan/cifar10-airbench). A kernel [height, width,
    channels, filters] is a matrix of one row for each filter. It moves `kernel_ratio` of the learning rate
    along the orthogonal matrix that is nearest to the gradient's running mean, and is kept at the length
    sqrt(filters): for networks that normalise what a convolution gives, so that its length means nothing.
    """

    def __init__(
        self,
        learning_rate: Any = 0.01,
        momentum: float = 0.85,
        nesterov: bool = True,
        weight_decay: float | None = None,
        kernel_ratio: float = 0.23,
        kernel_momentum: float = 0.7,
        iterations: int = 3,
        **kwargs: Any,
    ) -> None:
        """Make it.

        Args:
            learning_rate: of SGD, or its schedule.
            momentum: of SGD.
            nesterov: of SGD.
            weight_decay: of SGD; kernels of convolutions have a length that is set, and no decay.
            kernel_ratio: the rate of kernels is so much of the learning rate.
            kernel_momentum: of kernels, always Nesterov's.
            iterations: rounds of Newton and Schulz that make a step orthogonal.
            **kwargs: keras.optimizers.SGD's own.

        Raises:
            ValueError: for an argument out of its range.
        """
        given = (kernel_ratio, iterations, kernel_momentum)
        numbers = all(isinstance(value, int | float) for value in given)
        if not numbers or kernel_ratio <= 0 or iterations < 1 or not 0 <= kernel_momentum < 1:
            raise ValueError(
                "kernel_ratio must be above 0, iterations at least 1, kernel_momentum 0 or more and below 1"
            )
        super().__init__(learning_rate, momentum, nesterov, weight_decay, **kwargs)
        self.kernel_ratio = kernel_ratio
        self.kernel_momentum = kernel_momentum
        self.rounds = iterations

    def build(self, variables: list[Any]) -> None:
        """Make the running means, which kernels have even where the momentum of SGD is zero."""
        if self.built:
            return
        super().build(variables)
        if not self.momentum:
            self.momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Move one variable by one step."""
        if len(variable.shape) != 4:
            super().update_step(gradient, variable, learning_rate)
            return
        mean = self.momentums[self._get_variable_index(variable)]
        gradient = ops.cast(gradient, variable.dtype)
        self.assign(mean, mean * self.kernel_momentum + gradient)
        direction = orthogonal(gradient + mean * self.kernel_momentum, self.rounds)
        length = ops.norm(ops.reshape(variable, (-1,))) + _EPSILON
        kernel = variable * (variable.shape[-1] ** 0.5 / length)
        rate = ops.cast(learning_rate, variable.dtype) * self.kernel_ratio
        self.assign(variable, kernel - rate * direction)

    def get_config(self) -> dict[str, Any]:
        """The arguments, as Keras saves them."""
        return super().get_config() | {
            "kernel_ratio": self.kernel_ratio,
            "kernel_momentum": self.kernel_momentum,
            "iterations": self.rounds,
        }


def orthogonal(kernel: Any, rounds: int) -> Any:
    """The orthogonal matrix nearest to a kernel [height, width, channels, filters], nearly, in its shape.

    Newton's and Schulz's iteration: after three rounds the singular values that were not tiny are between
    about 0.5 and 1.2.
    """
    matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
    tall = matrix.shape[0] > matrix.shape[1]
    if tall:
        matrix = ops.transpose(matrix)
    matrix = matrix / (ops.norm(matrix) + _EPSILON)
    first, third, fifth = _COEFFICIENTS
    for _ in range(rounds):
        square = ops.matmul(matrix, ops.transpose(matrix))
        matrix = first * matrix + ops.matmul(third * square + fifth * ops.matmul(square, square), matrix)
    return ops.reshape(ops.transpose(matrix) if tall else matrix, kernel.shape)
