"""What TensorFlow says, in one line for a person."""

from __future__ import annotations

import pytest

from components.shared import tensorflow_errors


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "{{function_node __inference_f_12}} assertion failed: [blank: no digit to be seen]\n\t "
            "[[{{node Assert/Assert}}]] [Op:__inference_f_12]",
            "blank: no digit to be seen",
        ),
        (
            "Graph execution error:\n\nDetected at node map/while/DecodeImage defined at (most recent call "
            "last):\n<stack traces unavailable>\njpeg::Uncompress failed. Invalid JPEG data.\n\t "
            "[[{{node map/while/DecodeImage}}]] [Op:__inference_signature_wrapper_5]",
            "jpeg::Uncompress failed. Invalid JPEG data.",
        ),
        ("Input is empty.\n\t [[{{node map/while/DecodeImage}}]]", "Input is empty."),
        ("plain words", "plain words"),
    ],
)
def test_it_is_the_reason_alone(text: str, reason: str) -> None:
    assert tensorflow_errors.reason(text) == reason
