"""What a model says of itself: that the rows of a batch do not depend on each other.

`assets.extra/independent_rows.json` names the signatures for which whoever exported the model has found it
so, and the SHA-256 of the `saved_model.pb` that was looked at: the file counts for no other model.
"""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path

log = logging.getLogger(__name__)

FILE = "assets.extra/independent_rows.json"


def signatures(folder: Path) -> frozenset[str]:
    """The signatures with independent rows; none where nothing says so, or says it of another model."""
    try:
        document = json.loads((folder / FILE).read_bytes())
        digest = hashlib.sha256((folder / "saved_model.pb").read_bytes()).hexdigest()
        if document["saved_model_sha256"] == digest:
            return frozenset(map(str, document["signatures"]))
        log.warning("%s is of another model: requests are not joined", folder / FILE)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be used, requests are not joined: %s", folder / FILE, error)
    return frozenset()
