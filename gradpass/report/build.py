"""From verdicts to a report: one diagnostic a cause, with its code, its words and what can be done about it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any, Literal

from gradpass import __version__
from gradpass.flow import edges
from gradpass.flow.analysis import dtype_name
from gradpass.flow.facts import FLOAT
from gradpass.flow.verdict import Cut, EntryVerdict
from gradpass.flow.verdict import Target as Judged
from gradpass.program.graph import OWN, Node, Value
from gradpass.program.model import UNNAMED, Live, Model, Variable
from gradpass.report.codes import Code, code_of_op, code_of_site, find
from gradpass.report.diagnostics import Diagnostic, Entry, Fix, Report, Target
from gradpass.report.site import Sites, assignments, dead_end, first_reader, maker, owner_of
from gradpass.report.words import quoted, size, visible, whom
from gradpass.rules.base import rule_for

Place = tuple[str | None, str]  # the function (None: the graph) and the node of a cut

FLOAT_NAMES = frozenset(map(dtype_name, FLOAT))
GETS = {"none": "None", "zero": "zeros", "raises": "an error", "flows": "a gradient"}
HIDDEN = "TensorFlow answers zeros, because a loop or a call hides the cut; the way is severed all the same"


def build(
    model: Model, verdicts: Iterable[EntryVerdict], declined: Mapping[Place, str] | None = None, order: int = 1
) -> Report:
    """The report on a model; `declined` tells for a cut why the plan leaves it, `order` what the verdicts are of."""
    builder = _Builder(model, declined or {})
    entries = [builder.entry(verdict) for verdict in verdicts]
    builder.orphans()
    builder.unlisted()
    table = edges.table_for(model.program.tensorflow).version
    found = builder.finish()
    return Report(str(model.path), entries, found, __version__, table, order, model=model)


class _Builder:
    """Collects causes over all entries; the same op met in two entries stays one diagnostic."""

    def __init__(self, model: Model, declined: Mapping[Place, str]) -> None:
        self.model = model
        self.declined = declined
        self.sites = Sites(model.program)
        self.label = model.live.label if model.live else ""
        self.found: dict[tuple[Any, ...], _Cause] = {}

    def entry(self, verdict: EntryVerdict) -> Entry:
        """Adds the causes of one entry, and gives its targets with the indices of theirs."""
        names = _names(verdict.targets)
        hers = [set[int]() for _ in verdict.targets]

        def add(
            key: tuple[Any, ...],
            code: type[Code],
            targets: Iterable[int],
            cut: Cut | None = None,
            group: Literal["starves", "raises", "affects"] = "starves",
        ) -> None:
            cause = self.found.setdefault(key, _Cause(len(self.found), code, cut, entry=self.label))
            if verdict.name not in cause.entries:
                cause.entries.append(verdict.name)
            concerned = getattr(cause, group)
            for i in targets:
                concerned[verdict.targets[i].path] = (names[i], verdict.targets[i])
                hers[i].add(cause.index)

        if not verdict.float_outputs:
            add(("no-float", verdict.name), find("GP203"), range(len(verdict.targets)))
            self._locate(self.found["no-float", verdict.name], verdict, [])
        else:
            self._severed(verdict, add)
        everybody = enumerate(verdict.targets)
        left = [i for i, target in everybody if target.starved and not hers[i]]
        if left:
            add(("lost", verdict.name), find("GP302"), left)
        return Entry(
            verdict.name,
            list(verdict.outputs),
            [
                Target(t.name, t.path, t.kind, t.dtype, t.shape, t.parameters, t.state, t.structure, sorted(mine))
                for t, mine in zip(verdict.targets, hers, strict=True)
            ],
        )

    def _severed(self, verdict: EntryVerdict, add: Any) -> None:
        """The causes of an entry that has something to differentiate."""
        severing = self._severing(verdict.cuts)
        for cut in _others(verdict.cuts):
            add((cut.function, cut.node, cut.derivative), self._code_of(cut), cut.starves, cut)
        for cut in verdict.raising:
            code = self._code_of(cut, bystander=(cut.function, cut.node) not in severing)
            add((cut.function, cut.node, cut.derivative), code, cut.starves, cut, "raises")
        for cut in verdict.masks:
            add((cut.function, cut.node, cut.mask), find("GP304"), cut.starves, cut, "affects")
        starved = [i for i, t in enumerate(verdict.targets) if t.structure != "flows"]
        integer = [i for i in starved if not _is_float(verdict.targets[i])]
        lost = [i for i in verdict.disconnected if i not in integer and i not in verdict.uncaptured]
        # Asked of all at once first: in most models there is nothing of the kind.
        assigned = {i for i in lost if self._assigned(verdict, [i])} if self._assigned(verdict, lost) else set()
        # Where no variable is connected, it is not this or that layer: the loss is of something else.
        variables = {i for i, t in enumerate(verdict.targets) if t.kind == "variable" and t.captured and _is_float(t)}
        nobody = bool(variables) and variables <= set(lost)
        live = self.model.live or Live("")
        tensors = self._among(verdict, live.tensors)
        copied = self._among(verdict, live.copies) - tensors
        apart = tensors | copied | set(integer)
        groups = (
            ("GP205", [i for i in integer if i not in tensors]),
            ("GP512", sorted(tensors)),
            ("GP511", sorted(copied)),
            ("GP202" if self.model.live is None else "GP209", [i for i in verdict.uncaptured if i not in apart]),
            ("GP207", [i for i in lost if i in assigned]),
            ("GP208" if nobody else "GP201", [i for i in lost if i not in assigned]),
            ("GP206", [i for i in verdict.linear if i not in integer]),
        )
        for number, targets in groups:
            if targets:
                add((number, verdict.name), find(number), targets)
                cause = self.found[number, verdict.name]
                if live.constants and number in ("GP208", "GP209", "GP511"):
                    cause.notes.append(f"it reads as constants: {whom(live.constants, 'tensor')}")
                if number in ("GP201", "GP207", "GP208"):
                    shown = dict(zip((t.name for t in verdict.targets), _names(verdict.targets), strict=True))
                    cause.depends = [shown.get(name, name) for name in verdict.depends]
                if number != "GP206":
                    self._locate(cause, verdict, targets)

    def _among(self, verdict: EntryVerdict, keys: Container[Any]) -> set[int]:
        """The places of the variables with these keys among an entry's targets."""
        paths = {variable.path for key, variable in self.model.variables.items() if key in keys}
        return {i for i, t in enumerate(verdict.targets) if t.kind == "variable" and t.path in paths}

    def _severing(self, cuts: list[Cut]) -> set[Place]:
        """The ops that sever, and those that only work on what is severed before: whole numbers, texts, bools."""
        severing = set()
        for cut in cuts:
            if cut.derivative is None:
                onward = self.sites.at(cut).onward
                behind = [cut.node, *(node.name for node in (*onward.nodes, *(end for end, _ in onward.ends)))]
                severing |= {(cut.function, name) for name in behind}
        return severing

    def _assigned(self, verdict: EntryVerdict, targets: list[int]) -> bool:
        """Whether what is computed from some targets goes into a variable."""
        return bool(assignments(self._places(verdict, targets)))

    def _places(self, verdict: EntryVerdict, targets: list[int]) -> list[Value]:
        """The values of an entry's function that stand for some targets."""
        entry = self.model.entries.get(verdict.name)
        if entry is None or not targets:
            return []
        asked = [verdict.targets[i] for i in targets]
        paths = {target.path for target in asked if target.kind == "variable"}
        places = [entry.inputs[target.name] for target in asked if target.kind == "input"]
        for key, variable in self.model.variables.items():
            if variable.path in paths:
                places += entry.captures.get(key, ())
        return places

    def _locate(self, cause: _Cause, verdict: EntryVerdict, targets: list[int]) -> None:
        """Finds the op whose line tells most of a cause that is no op's: where a way ends, or what the loss is."""
        entry = self.model.entries.get(verdict.name)
        if entry is None or cause.at is not None:
            return
        code, values = cause.code.code, self._places(verdict, targets)
        if code == "GP207":
            assigning = assignments(values)[0]
            cause.at = assigning
            owners = {value: key for key, held in entry.captures.items() for value in held}
            owner = owner_of(assigning.inputs[0], entry.function, owners)
            where = quoted(self._shown(owner)) if owner in self.model.variables else "a variable"
            cause.notes.append(f"{quoted(assigning.name)} assigns it to {where}")
        elif code in ("GP203", "GP208"):
            cause.at = next((made for value in entry.outputs.values() if (made := maker(value))), None)
        elif code == "GP511":
            copies = self.model.live.copies if self.model.live else {}
            place = next((copy.place for copy in copies.values() if copy.place), None)
            cause.at = self.model.program.function(place[0]).by_name[place[1]] if place else None
        elif code == "GP205":
            cause.at = first_reader(entry.function, values)
        elif code == "GP201":
            cause.at = dead_end(entry.function, values)
            if cause.at is not None:
                cause.notes.append(
                    f"what is computed from {whom(list(cause.names), 'other')} ends in {quoted(cause.at.name)}"
                )

    def _shown(self, key: Any) -> str:
        """A variable as it is called in messages."""
        variables = list(self.model.variables.values())
        shown = _unique([v.name for v in variables], [v.path for v in variables])
        return shown[variables.index(self.model.variables[key])]

    def _code_of(self, cut: Cut, bystander: bool = False) -> type[Code]:
        """The code of a cut: a custom gradient that is lost, one that knows the site, that of the op, or a general."""
        if cut.derivative is not None:
            return find({"zero": "GP303", "none": "GP117", "raises": "GP116"}[cut.how])
        if cut.how == "raises" and cut.error is None and self._has_custom_gradient(cut):
            return find("GP110")
        fitting = code_of_site(self.sites.at(cut, bystander))
        if fitting is not None:
            return fitting
        if cut.error is not None:
            return find("GP115")
        return code_of_op(cut.op) or find({"raises": "GP109", "zero": "GP300", "none": "GP100"}[cut.how])

    def _has_custom_gradient(self, cut: Cut) -> bool:
        return self._node(cut).attr("_gradient_op_type") is not None

    def _node(self, cut: Cut) -> Node:
        program = self.model.program
        function = program.graph if cut.function is None else program.function(cut.function)
        return function.by_name[cut.node]

    def _fix(self, cause: _Cause) -> Fix:
        """What `gradpass fix` does about a cause, or why nothing."""
        if cause.code.fix is not None:
            return Fix(cause.code.fix, None, cause.code.refusal)
        cut = cause.cut
        if cut is None:
            return Fix("refuse", None, "gradpass has no repair for this cause")
        node = self._node(cut)
        rule = rule_for(node)
        if rule is None:
            return Fix("refuse", None, f"gradpass has no rule for {cut.op}")
        reason = self.declined.get(cause.place)
        return Fix("refuse", rule.name, reason) if reason else Fix(rule.kind_of(node, cut.inputs), rule.name)

    def unlisted(self) -> None:
        """Adds what only a live model tells of variables that are no targets."""
        live = self.model.live
        if live is None:
            return
        for number, keys in (("GP210", live.untracked), ("GP513", live.frozen)):
            if keys:
                variables = [self.model.variables[key] for key in keys]
                self.found[(number,)] = _Cause(len(self.found), find(number), None, orphans=variables, entry=live.label)
        if not live.frozen and not any(variable.trainable for variable in self.model.variables.values()):
            cause = self.found[("GP211",)] = _Cause(len(self.found), find("GP211"), None, entry=live.label)
            cause.notes += [f"it reads as constants: {whom(live.constants, 'tensor')}"] if live.constants else []

    def orphans(self) -> None:
        """Sums up the variables that no function uses."""
        if self.model.live is not None:
            return  # nobody else than its one function is there to use them
        orphans = [v for key, v in self.model.variables.items() if key not in self.model.captured]
        if orphans:
            self.found[("orphans",)] = _Cause(len(self.found), find("GP204"), None, orphans=orphans)

    def finish(self) -> list[Diagnostic]:
        """The diagnostics, in the order in which the causes were met."""
        found = [(cause, cause.diagnostic(self._fix(cause))) for cause in self.found.values()]
        placed = [(diagnostic, cause) for cause, diagnostic in found if cause.cut or cause.at]
        if not placed:
            return [diagnostic for _, diagnostic in found]
        from gradpass.report.scopes import Layers  # most models are well, and nobody waits for what is not needed
        from gradpass.report.sources import edited, source_of

        layers = Layers(self.model)
        info = self.model.debug_info
        moved = set[str]()
        for diagnostic, cause in placed:
            source = diagnostic.source = source_of(info, *cause.place)
            if source and source.file not in moved and edited(info, source):
                moved.add(source.file)
                diagnostic.notes.append(
                    f"{quoted(source.file)} was edited after the model was saved; its lines may have moved"
                )
            layer = layers.layer_of(cause.entries[0], cause.cut) if cause.cut else ""
            if cause.cut and layer:
                scope = cause.cut.node.rpartition("/")[0]
                diagnostic.notes.append(f"the scope {quoted(scope)} reads the variables of the layer {quoted(layer)}")
        if info.problem:
            placed[0][0].notes.append(info.problem)
        return [diagnostic for _, diagnostic in found]


class _Cause:
    """One cause while it is collected: whom it starves, raises for or affects, by path, as (shown name, target)."""

    def __init__(
        self, index: int, code: type[Code], cut: Cut | None, orphans: Iterable[Variable] = (), entry: str = ""
    ) -> None:
        self.entry = entry  # what a live target is called
        self.index = index
        self.code = code
        self.cut = cut
        self.orphans = list(orphans)
        self.entries: list[str] = []
        self.depends: list[str] | None = None
        self.at: Node | None = None  # where there is no cut, the op whose line is shown
        self.notes: list[str] = []
        self.starves: dict[str, tuple[str, Judged]] = {}
        self.raises: dict[str, tuple[str, Judged]] = {}
        self.affects: dict[str, tuple[str, Judged]] = {}

    @property
    def place(self) -> Place:
        """The function and the node whose line is shown."""
        if self.cut is not None:
            return self.cut.function, self.cut.node
        assert self.at is not None
        return self.at.function.name, self.at.name

    @property
    def names(self) -> Iterator[str]:
        """Whom it concerns, as shown."""
        return (name for name, _ in (self.starves or self.affects or self.raises).values())

    def diagnostic(self, fix: Fix) -> Diagnostic:
        """The finished diagnostic."""
        concerned = list((self.starves or self.affects or self.raises).values())
        cut = self.cut
        starves = [name for name, _ in self.starves.values()]
        return Diagnostic(
            code=self.code.code,
            name=self.code.name,
            severity=self.code.severity,
            message=self._message([target for _, target in concerned], [name for name, _ in concerned]),
            help=self.code.advice(cut.op) if cut else self.code.advice(),
            op=cut.op if cut else None,
            node=cut.node if cut else None,
            function=cut.function if cut else None,
            stack=list(cut.stack) if cut else [],
            entries=self.entries,
            starves=starves,
            affects=[name for name, _ in self.affects.values()],
            unused=self._unused(),
            raises=[name for name, _ in self.raises.values()],
            parameters=sum(v.parameters for v in self.orphans)
            or sum(t.parameters for _, t in (self.starves or self.affects).values()),
            path=self._path(concerned),
            notes=self._notes(),
            fix=fix,
        )

    def _path(self, concerned: list[tuple[str, Judged]]) -> list[str]:
        """The cut's path, which begins with the target as it is shown elsewhere."""
        if self.cut is None:
            return []
        shown = {target.name: name for name, target in concerned}
        return [shown.get(self.cut.path[0], self.cut.path[0]), *self.cut.path[1:]]

    def _message(self, targets: list[Judged], names: list[str]) -> str:
        if self.orphans:
            return self.code.message.format(
                whom=whom(self._unused(), "variable"), bytes=size(sum(map(bytes_of, self.orphans))),
                entry=quoted(self.entry), them="it" if len(self.orphans) == 1 else "them",
            )  # fmt: skip
        kind = targets[0].kind if targets and len({t.kind for t in targets}) == 1 else "target"
        # Where the graph is severed but the state is an error or zeros, the state is what the user saw.
        states = [s for s in GETS if any(t.state == s for t in targets)]
        gets = " or ".join(GETS[s] for s in states if s != "flows" or len(states) == 1)
        if self.affects and not self.starves:
            gets = "zeros, whatever the data"
        verb = "gets" if len(names) == 1 else "get"
        entry = quoted(self.entry) if self.entry else " and ".join(f"entry {quoted(name)}" for name in self.entries)
        return self.code.message.format(
            what=_what(self.cut),
            whom=whom(names, kind),
            gets=f"{verb} {gets}",
            entry=entry,
            error=visible(str(self.cut.derivative or self.cut.error)) if self.cut else None,
            mask=self.cut.mask if self.cut else None,
        )

    def _unused(self) -> list[str]:
        return _unique([v.name for v in self.orphans], [v.path for v in self.orphans])

    def _notes(self) -> list[str]:
        notes = list(self.notes)
        if self.depends is not None:
            others = whom(self.depends, "other value") or "no input and no variable that is trained"
            notes.append(f"the float outputs are computed from {others}")
        starved = [target for _, target in self.starves.values()]
        if self.cut and any(t.state == "zero" and t.structure == "none" for t in starved):
            notes.append(HIDDEN)
        beside = [name for path, (name, _) in self.raises.items() if path not in self.starves]
        if beside and self.starves:
            # Of an op that raises in spite of a derivative nobody looked who passes through it.
            plain = self.cut is not None and self.cut.derivative is None and self.cut.error is None
            passes = ", though no way from there passes through this op" if plain else ""
            notes.append(f"TensorFlow raises for {whom(beside, 'target')} too{passes}")
        return notes


def _others(cuts: list[Cut]) -> list[Cut]:
    """The cuts but for our own bridges, behind which something stays severed by a cut that is told."""
    told = [cut for cut in cuts if not (cut.function or "").startswith(OWN)]
    named = {target for cut in told for target in cut.starves}
    return [cut for cut in cuts if cut in told or not named.issuperset(cut.starves)]


def _what(cut: Cut | None) -> str:
    """A node by its name, and its op where the name does not tell."""
    if cut is None:
        return ""
    name = re.sub(r"_\d+$", "", cut.node.rpartition("/")[2]).replace("_", "").lower()
    told = name in (cut.op.lower(), re.sub(r"[Vv]\d+$", "", cut.op).lower())
    return quoted(cut.node) if told else f"{quoted(cut.node)} ({visible(cut.op)})"


def bytes_of(variable: Variable) -> int:
    """How many bytes the values of a variable take."""
    width = re.search(r"\d+$", dtype_name(variable.dtype))
    return variable.parameters * (int(width.group()) // 8 if width else 1)


def _is_float(target: Judged) -> bool:
    return target.dtype in FLOAT_NAMES


def _names(targets: list[Judged]) -> list[str]:
    return _unique([t.name for t in targets], [t.path for t in targets])


def _unique(names: list[str], paths: list[str]) -> list[str]:
    """The name of each where it is unmistakable and somebody gave it, else its path."""
    times = Counter(names)
    return [path if times[name] > 1 or UNNAMED.match(name) else name for name, path in zip(names, paths, strict=True)]
