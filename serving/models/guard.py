"""Which signatures could end the process when they are given a tensor of the wrong rank.

TensorFlow's kernels check what they are given and answer with an error, but for some of oneDNN's, which
abort the whole process. Seen, or told in TensorFlow's issues 111453, 111457, 112536 and 112555:
convolutions of two and three dimensions, depthwise ones, what belongs to their gradients (a transposed
convolution is one), and pooling in three dimensions. Whether oneDNN's kernel is taken depends on the
processor and the size of the operation, so it cannot be tried out: a signature that computes with an
operation of these families has the rank of its inputs compared with the declared one. All others leave
their inputs to the graph, as in TF Serving.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from serving.protocol.protos import graph_pb2, meta_graph_pb2

# The fused forms that TensorFlow's optimizer and exporters make of them have the same names inside.
ABORTING = re.compile(r"Conv[23]D|DepthwiseConv2d|(Max|Avg)Pool|FusedBatchNorm|LRN")


def needs_guard(graph: graph_pb2.GraphDef, signature: meta_graph_pb2.SignatureDef) -> bool:
    """Whether what computes the outputs has an operation that aborts."""
    nodes = {node.name: node for node in graph.node}
    functions = {function.signature.name: function for function in graph.library.function}
    wanted = [info.name for info in signature.outputs.values()]
    seen: set[str] = set()
    called: set[str] = set()
    while wanted:
        name = wanted.pop().lstrip("^").partition(":")[0]
        if name in seen or name not in nodes:
            continue
        seen.add(name)
        node = nodes[name]
        if ABORTING.search(node.op):
            return True
        wanted.extend(node.input)
        called.update(_functions(node))
    return any(_aborts(name, functions, set()) for name in called)


def _aborts(name: str, functions: dict[str, graph_pb2.GraphDef], seen: set[str]) -> bool:
    if name in seen or name not in functions:
        return False
    seen.add(name)
    nodes: Iterable[graph_pb2.NodeDef] = functions[name].node_def
    return any(
        bool(ABORTING.search(node.op))
        or any(_aborts(called, functions, seen) for called in _functions(node))
        for node in nodes
    )


def _functions(node: graph_pb2.NodeDef) -> Iterator[str]:
    """The functions that a node calls; in old graphs a node's operation is itself one."""
    yield node.op
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        for function in value.list.func:
            yield function.name
