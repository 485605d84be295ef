"""What a code is: the texts of one kind of finding, and two examples that prove them.

A code is one class in a file of this folder. Its docstring is the explanation that `gradpass explain CODE` prints.
`failing` and `fixed` are Python that defines a variable `v` and a function `loss()`; the tests run both, save the
failing one as a SavedModel and expect `gradpass check` to find this very code there. A file added to this folder
registers its classes.

    GP1xx  severed: an op on the way gives no gradient
    GP2xx  disconnected: there is no way
    GP3xx  silent zero: there is a gradient, and it is zeros; whatever happens, or (GP31x) for this batch of data
    GP40x  no use: it is NaN or infinite, or explodes, for this batch of data
    GP60x  worthless: a repair gave it, and it leads nowhere
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Iterable, Mapping
from functools import cache
from typing import ClassVar, Literal

from gradpass.errors import GradpassBug, GradpassError
from gradpass.report.diagnostics import FixKind, Severity
from gradpass.report.site import Site

Says = Literal["None", "zeros", "NaN", "LookupError", "TypeError", "a gradient"]

_registry: dict[str, type[Code]] = {}


class Code:
    """One kind of finding.

    `name` reads after "allow". `message` may use {what} (the node and its op), {whom} (the starved targets), {gets} (as
    "gets None"), {entry}, {mask} (what a constant does), {why} (what an op does by value) and {error} (what a gradient
    function raises, or what it lacks), `help` {op}; `helps` says more of some ops. Python that stands there between
    backquotes runs. `ops` are the ops that cause it; a code that they cannot tell says by `fits` where it is meant, and
    comes first there. `fix` and `refusal` hold where no rule can help, whatever the op; None leaves it to the rules.
    `says` is what TensorFlow gives for `failing`, `loaded` whether it does so only once that is saved and loaded.
    `order` is that of the derivative. `live` is the call that finds it, of what no file shows.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    severity: ClassVar[Severity] = "error"
    ops: ClassVar[tuple[str, ...]] = ()
    message: ClassVar[str]
    help: ClassVar[str]
    helps: ClassVar[Mapping[str, str]] = {}
    fix: ClassVar[FixKind | None] = None
    refusal: ClassVar[str | None] = None
    says: ClassVar[Says] = "None"
    loaded: ClassVar[bool] = False
    live: ClassVar[str | None] = None
    order: ClassVar[Literal[1, 2]] = 1
    failing: ClassVar[str]
    fixed: ClassVar[str]

    def __init_subclass__(cls) -> None:
        taken = _registry.setdefault(cls.code, cls)
        if taken is not cls:
            raise GradpassBug("report.codes", None, f"{cls.__name__} and {taken.__name__} share the code {cls.code}")

    @classmethod
    def fits(cls, site: Site) -> bool:
        """Whether this code says more about a cut than that of its op does."""
        return False

    @classmethod
    def advice(cls, op: str = "ThatOp") -> str:
        """The help for an op."""
        return cls.helps.get(op, cls.help).replace("{op}", op)

    @classmethod
    def explanation(cls) -> str:
        """The docstring without its indentation."""
        return inspect.cleandoc(cls.__doc__ or "")


@cache
def all_codes() -> dict[str, type[Code]]:
    """All codes, by number."""
    for module in pkgutil.iter_modules(importlib.import_module("gradpass.report.codes").__path__):
        importlib.import_module(f"gradpass.report.codes.{module.name}")
    return dict(sorted(_registry.items()))


def find(text: str) -> type[Code]:
    """The code of that number or name, as a user types it."""
    for code in all_codes().values():
        if text.upper() == code.code or text.lower() == code.name:
            return code
    raise GradpassError(f"there is no code {text!r}; `gradpass explain codes` lists them")


def prefixes(words: Iterable[str]) -> tuple[str, ...]:
    """Codes or prefixes as a user types them; one that fits no code is a mistake."""
    found = tuple(word.strip().upper() for word in words if word.strip())
    for prefix in found:
        if not any(code.startswith(prefix) for code in all_codes()):
            raise GradpassError(f"no code begins with {prefix!r}; `gradpass explain codes` lists them")
    return found


def code_of_site(site: Site) -> type[Code] | None:
    """The code that tells a cut by what stands around it; None where its op tells more."""
    return next((code for code in all_codes().values() if code.fits(site)), None)


@cache
def code_of_op(op: str) -> type[Code] | None:
    """The code that names this op; None where only a general one fits."""
    return next((code for code in all_codes().values() if op in code.ops), None)
