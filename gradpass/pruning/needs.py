"""What somebody needs of a program: which nodes, which arguments and results of functions, and whose effects.

The question is jax's `dce_jaxpr`: which inputs do the outputs that are used need, through calls, branches and loops. A
function has one answer for all who run it: what one of them uses is needed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from gradpass.program.graph import ARGUMENT, Function, Node, Program, Value
from gradpass.pruning.sites import CUSTOM, Joined, Slot, mentioned, site

# Stateful by their definition, since what they read may change; they change nothing themselves, so that nobody misses
# one whose value nobody reads. The writes of a TensorArray are seen through its flow only, which is a value.
READING = frozenset(
    {
        "ReadVariableOp", "ResourceGather", "ResourceGatherNd", "VariableShape", "VarIsInitializedOp", "VarHandleOp",
        "Variable", "VariableV2", "HashTable", "HashTableV2", "LookupTableFind", "LookupTableFindV2",
        "LookupTableSize", "LookupTableSizeV2", "StatelessRandomGetAlg", "DeviceIndex", "GuaranteeConst", "Placeholder",
        "TensorArrayV3", "TensorArrayReadV3", "TensorArrayGatherV3", "TensorArraySizeV3", "TensorArrayConcatV3",
        "TensorArrayWriteV3", "TensorArrayScatterV3", "TensorArraySplitV3",
    }
)  # fmt: skip

# The first variables of a loop count its turns and say how many there may be: TensorFlow's gradient takes them by place
# (tensorflow/python/ops/while_v2.py, _WhileGrad).
COUNTERS = 2

# Functions that do the same on different devices, as the LSTM of tf_keras has them; TensorFlow's optimizer lets one
# stand for the other, so that they must take and give the same
# (tensorflow/core/grappler/optimizers/implementation_selector.h).
IMPLEMENTS = "api_implements"
COMPOSITE = "_implements"  # of a function that a converter takes for one op of its own, by what it takes and gives


class Needs:
    """Grows from what it is told to need. `nodes` are those needed, `functions` those that somebody runs.

    `dropped` are nodes that are to go whatever they do, `skipped` inputs that their node is to do without.
    """

    def __init__(
        self, program: Program, dropped: Iterable[Node] = (), skipped: Mapping[Node, set[int]] | None = None
    ) -> None:
        self.program = program
        self.dropped = set(dropped)
        self.skipped = dict(skipped or {})
        self.nodes: set[Node] = set()
        self.functions: set[str] = set()
        self.slots: set[Slot] = set()
        self._joined = Joined(program)
        self._sites: dict[str, list[Node]] = {}  # function -> the nodes that run it, of those needed
        self._effects: dict[str, bool] = {}
        self._whole: set[str] = set()
        self._implementations: dict[bytes, list[str]] | None = None
        self._todo: deque[Node | Value | Slot] = deque()

    def need_call(self, name: str, arguments: int, results: Iterable[int] | None = None) -> None:
        """A function that may be called from outside, with that many arguments of the caller's own.

        `results` are the places of those that the caller wants; by default all.
        """
        function = self.program.function(name)
        self._run(name)
        self._todo.extend(Slot(name, "argument", i) for i in range(arguments))
        self._todo.extend(
            Slot(name, "result", i) for i in (range(len(function.results)) if results is None else results)
        )
        self._spread()

    def need_whole(self, name: str) -> None:
        """A function that is run in a way that nobody here can take apart, with all that is in it."""
        if name in self._whole or name not in self.program.functions:
            return
        self._whole.add(name)
        function = self.program.function(name)
        self._run(name)
        self._todo.extend(function.nodes)
        self._todo.extend(Slot(name, "argument", i) for i in range(len(function.arguments)))
        self._todo.extend(Slot(name, "result", i) for i in range(len(function.results)))
        self._spread()

    def need(self, what: Iterable[Node | Value]) -> None:
        """Nodes and values of the top-level graph, or of functions that are run."""
        self._todo.extend(what)
        self._spread()

    def argument(self, function: str, index: int) -> bool:
        """Whether an argument of a function is needed."""
        return Slot(function, "argument", index) in self.slots

    def result(self, function: str, index: int) -> bool:
        """Whether a result of a function is needed."""
        return Slot(function, "result", index) in self.slots

    def has_effect(self, node: Node) -> bool:
        """Whether a node does something beside giving values: what it assigns, prints, raises, draws."""
        runs = [name for name in mentioned(node.kind) if name in self.program.functions]
        if site(node) is not None:
            return any(map(self._function_has_effect, runs))
        if node.op in self.program.functions:  # a function called by its own name, as TensorFlow 1 did
            runs.append(node.op)
        elif node.kind.signature is None or (node.kind.signature.stateful and node.op not in READING):
            return True
        return any(map(self._function_has_effect, runs))

    def _function_has_effect(self, name: str) -> bool:
        known = self._effects.get(name)
        if known is None:
            self._effects[name] = False  # while it is looked at: a function that calls itself
            known = self._effects[name] = any(map(self.has_effect, self.program.function(name).nodes))
        return known

    def _run(self, name: str) -> None:
        """Somebody runs that function: what has an effect in it is needed."""
        if name in self.functions:
            return
        self.functions.add(name)
        function = self.program.function(name)
        self._todo.extend(node for node in function.nodes if node not in self.dropped and self.has_effect(node))
        for label, value in function.proto.attr.items():
            if label == IMPLEMENTS:
                for other in self._alike()[value.s]:
                    self.need_whole(other)
            elif label == COMPOSITE:
                self.need_whole(name)
            elif value.WhichOneof("value") == "s":  # the other half of a pair of forward and backward functions
                self.need_whole(value.s.decode(errors="replace"))
        for gradient in self.program.function_gradients.get(name, ()):
            self.need_whole(gradient)

    def _alike(self) -> dict[bytes, list[str]]:
        """The functions by what they implement."""
        if self._implementations is None:
            self._implementations = {}
            for name in self.program.functions:
                label = self.program.function(name).proto.attr.get(IMPLEMENTS)
                if label is not None:
                    self._implementations.setdefault(label.s, []).append(name)
        return self._implementations

    def _spread(self) -> None:
        while self._todo:
            item = self._todo.popleft()
            if isinstance(item, Node):
                self._node(item)
            elif isinstance(item, Value):
                self._value(item)
            else:
                self._slot(item)

    def _value(self, value: Value) -> None:
        node = value.node
        if node.op == ARGUMENT:
            self._slot(Slot(str(node.function.name), "argument", node.position))
            return
        self._node(node)
        found = site(node)
        if found is not None:
            self._slot(Slot(found.bodies[0], "result", value.port))

    def _node(self, node: Node) -> None:
        if node in self.nodes or node.op == ARGUMENT:
            return
        self.nodes.add(node)
        if node.function.is_graph:  # where nothing runs that is not asked for, not even what has an effect
            self._todo.extend(each for each in node.controls if each not in self.dropped)
        else:  # elsewhere they are looked at for themselves, but for those that only bundle others
            self._todo.extend(each for each in node.controls if each.op == "NoOp")
        found = site(node)
        if found is None:
            left_out = self.skipped.get(node, ())
            self._todo.extend(value for i, value in enumerate(node.inputs) if i not in left_out)
            self._opaque(node)
            return
        self._todo.extend(node.inputs[: found.skip])
        for name in found.functions:
            self._sites.setdefault(name, []).append(node)
            self._run(name)
            if IMPLEMENTS in self.program.function(name).proto.attr:
                self._handed_on(node)
        if found.condition is not None:
            self._todo.append(Slot(found.condition, "result", 0))
            self._todo.extend(Slot(found.bodies[0], "argument", i) for i in range(min(COUNTERS, len(node.inputs))))
        for i, value in enumerate(node.inputs[found.skip :]):
            if any(self.argument(name, i) for name in found.functions):
                self._todo.append(value)
        self._custom(node)

    def _handed_on(self, node: Node) -> None:
        """What a function gives of such a call stays its result.

        Where TensorFlow sees that nobody reads a result of a call, it makes a function of its own without it, and that
        one is not exchanged any more for another device's: other bits would come out.
        """
        for place, result in enumerate(node.function.results):
            giver = result.node
            while giver.op == "Identity":
                giver = giver.inputs[0].node
            if giver is node:
                self._todo.append(Slot(str(node.function.name), "result", place))

    def _opaque(self, node: Node) -> None:
        for name in mentioned(node.kind):
            self.need_whole(name)
        self.need_whole(node.op)
        self._custom(node)

    def _custom(self, node: Node) -> None:
        """The custom gradient of a node, which a training step runs."""
        named = node.kind.attrs.get(CUSTOM)
        gradient = None if named is None else self.program.registered_gradients.get(named.s.decode())
        if gradient is not None:
            self.need_whole(gradient)

    def _slot(self, slot: Slot) -> None:
        if slot in self.slots:
            return
        for each in self._joined.members(slot):
            self.slots.add(each)
            if each.kind == "result":
                self._todo.append(self.program.function(each.function).results[each.place])
            else:
                for node in self._sites.get(each.function, ()):
                    found = site(node)
                    assert found is not None
                    self._todo.append(node.inputs[found.skip + each.place])


def behind(node: Node, kept: set[Node]) -> list[Node]:
    """The nodes of `kept` that come before one that is not, with no other of them in between; in the file's order."""
    found: dict[Node, None] = {}
    seen = {node}
    todo = [node]
    while todo:
        gone = todo.pop()
        for each in [*gone.controls, *(value.node for value in gone.inputs)]:
            if each in seen or each.op == ARGUMENT:
                continue
            seen.add(each)
            if each in kept:
                found[each] = None
            else:
                todo.append(each)
    return sorted(found, key=lambda each: each.position)


def whole(function: Function, needs: Needs) -> bool:
    """Whether nothing of a function is to go."""
    name = str(function.name)
    return (
        not any(node in needs.skipped for node in function.nodes)
        and all(node in needs.nodes for node in function.nodes)
        and all(needs.argument(name, i) for i in range(len(function.arguments)))
        and all(needs.result(name, i) for i in range(len(function.results)))
        and not any(_narrowed(node, needs) for node in function.nodes)
    )


def _narrowed(node: Node, needs: Needs) -> bool:
    """Whether a call, branch or loop runs functions that take or give less now."""
    found = site(node)
    if found is None:
        return False
    body = needs.program.function(found.bodies[0])
    return not (
        all(needs.argument(found.bodies[0], i) for i in range(len(body.arguments)))
        and all(needs.result(found.bodies[0], i) for i in range(len(body.results)))
    )
