"""What the flow analysis answers: targets with their states, and the edges where gradients are cut.

Plain data, made by `flow.analysis` and `flow.blame`, read by `rewrite` (which repairs cuts) and `report` (which shows
them).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

State = Literal["flows", "zero", "none", "raises"]
Structure = Literal["flows", "zero", "none"]
How = Literal["none", "zero", "raises"]

ZEROS = "zeros"


@dataclass(frozen=True)
class Target:
    """A variable or an input, and what becomes of its gradient.

    `state` is TensorFlow's answer to a user in a fresh process; `structure` the truth of the inlined graph.
    `shape` has None for unknown sizes and is None for an unknown rank; `parameters` is 0 where the size is unknown.
    `captured` tells whether the entry uses the target at all.
    """

    name: str
    path: str
    kind: Literal["variable", "input"]
    dtype: str
    shape: tuple[int | None, ...] | None
    parameters: int
    state: State
    structure: Structure
    captured: bool = True

    @property
    def starved(self) -> bool:
        return self.state != "flows" or self.structure != "flows"


@dataclass
class Cut:
    """One op that severs gradients: where differentiable data of starved targets enters it and no gradient comes back.

    `how` is what the op's gradient gives for that input: "none", "zero" or "raises" (no gradient registered).
    `function` is None for a node of the top-level graph. `stack` names the call nodes from the entry down to
    `function`.
    `inputs` are the data inputs at which gradients are severed. `starves` holds indices into `EntryVerdict.targets`;
    `path` the shortest way from the first of them to the loss, through this op, as node names (target name first,
    output name last). `error` says what the op's gradient function raises, where there is one. `derivative` says that
    not the op but its derivative severs gradients of order 2: the op that the derivative is made of and that has none
    (or the error), or ZEROS where the derivative is constant. `mask` says how a constant makes all that comes back
    zeros, of an op that has a gradient.
    """

    op: str
    node: str
    function: str | None
    stack: tuple[str, ...]
    how: How
    starves: list[int]
    parameters: int
    path: list[str]
    inputs: list[int] = field(default_factory=list)
    error: str | None = None
    derivative: str | None = None
    mask: str | None = None


@dataclass
class EntryVerdict:
    """The verdict for one entry.

    `cuts` are in graph order, each starving somebody. `raising` are ops without a gradient that make the whole call
    raise in TensorFlow (`state`), listed apart because they may starve targets that structurally flow. `disconnected`
    are indices of targets that reach no float output by any data path; `uncaptured` of those the entry never uses.
    Where there are any, `depends` names the inputs and targets that the float outputs are computed from. `linear` are,
    in a verdict of order 2, indices of targets that no gradient of order 1 depends on. `masks` are the ops at which a
    constant makes zeros of the gradients of targets that flow.
    """

    name: str
    outputs: list[str]
    targets: list[Target]
    cuts: list[Cut] = field(default_factory=list)
    raising: list[Cut] = field(default_factory=list)
    disconnected: list[int] = field(default_factory=list)
    uncaptured: list[int] = field(default_factory=list)
    depends: list[str] = field(default_factory=list)
    float_outputs: bool = True
    linear: list[int] = field(default_factory=list)
    masks: list[Cut] = field(default_factory=list)
