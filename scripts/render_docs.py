"""Writes a page of docs/ for each code and each rule, and the README's table of codes; `--check` only compares."""

from __future__ import annotations

import argparse
import inspect
import sys
from pathlib import Path

from gradpass.report.codes import Code, all_codes
from gradpass.rules.base import Rule, by_op, rules

ROOT = Path(__file__).parent.parent
PAGES = ROOT / "docs" / "codes"
RULES = ROOT / "docs" / "rules"
README = ROOT / "README.md"
BEGIN, END = "<!-- rendered by scripts/render_docs.py -->\n", "<!-- end of the codes -->\n"


def page(code: type[Code]) -> str:
    """All that a code knows of itself, in Markdown."""
    parts = [f"# {code.code} {code.name}", f"Severity: {code.severity}. {answer(code)}", code.explanation()]
    if code.ops:
        parts.append("Ops: " + ", ".join(f"`{op}`" for op in code.ops) + ".")
    parts += ["## What to do", f"{sentence(code.advice())}", cases(code), repair(code)]
    parts += [f"## An example that {fails(code)}", python(code.failing), "## The same with a gradient"]
    parts += [python(code.fixed)]
    return "\n\n".join(part for part in parts if part) + "\n"


def cases(code: type[Code]) -> str:
    """What to do about some of its ops, where that is another thing."""
    return "\n".join(f"- `{op}`: {advice}." for op, advice in code.helps.items())


def answer(code: type[Code]) -> str:
    """What TensorFlow says there."""
    what = "the gradient" if code.order == 1 else "the gradient of the gradient"
    verb = "raises" if code.says.endswith("Error") else "gives"
    once = " once the model is loaded" if code.loaded else ""
    found = f" Found in Python, by `{code.live}`." if code.live else ""
    return f"Asked for {what}, TensorFlow {verb} {code.says}{once}.{found}"


def fails(code: type[Code]) -> str:
    return f"raises {code.says}" if code.says.endswith("Error") else f"gives {code.says}"


def repair(code: type[Code]) -> str:
    """What `gradpass fix` does about it."""
    if code.refusal:
        return f"`gradpass fix` leaves it: {code.refusal}."
    names = dict.fromkeys(rule.name for op in code.ops for rule in by_op().get(op, ()) if not rule.internal)
    if names:
        return f"`gradpass fix` keeps the values and adds a derivative: {', '.join(f'`{name}`' for name in names)}."
    return ""


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def python(source: str) -> str:
    return f"```python\n{source.strip()}\n```"


def rule_page(rule: Rule) -> str:
    """All that a rule knows of itself, in Markdown: its docstring, and its examples in v [4, 3] and c [3, 5]."""
    parts = [f"# {rule.name}", f"Kind: {rule.kind}. Ops: {', '.join(f'`{op}`' for op in rule.ops)}."]
    parts.append(inspect.getdoc(rule) or "")
    if rule.hits:
        parts += ["## What it gives a gradient", python("\n".join(rule.hits))]
    if rule.misses:
        parts += ["## What it declines", "\n".join(f"- `{source}`: {why}" for source, why in rule.misses)]
    return "\n\n".join(parts) + "\n"


def table() -> str:
    """The README's table: a row a code."""
    rows = ["| code | name | what it says |", "|---|---|---|"]
    for code in all_codes().values():
        rows.append(f"| [{code.code}](docs/codes/{code.code}.md) | {code.name} | {matter(code)} |")
    return "\n".join(rows) + "\n"


def matter(code: type[Code]) -> str:
    """The first half of the message, of nobody in particular; where only values can tell, what the page begins with."""
    if "{why}" in code.message:
        text = code.explanation().partition(": ")[0].partition(". ")[0].replace("\n", " ")
        return f"{text[0].lower()}{text[1:]}"
    text = code.message.format(
        what="an op",
        whom="a target",
        gets="gets none",
        entry="the entry",
        bytes="some bytes",
        mask="makes it zeros by a constant",
        error="an error" if code.order == 1 else "another op",
        outcome="a target gets none",
        them="it",
        others="another",
        outputs="some outputs",
        shape="of several numbers",
    )
    return text.partition(": a target")[0].partition(": some bytes")[0]


def files() -> dict[Path, str]:
    """All that is generated, with its text."""
    old = README.read_text("utf-8")
    before, begin, rest = old.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"{README.name} lacks the markers {BEGIN.strip()} and {END.strip()}")
    pages = {PAGES / f"{number}.md": page(code) for number, code in all_codes().items()}
    pages |= {RULES / f"{rule.name}.md": rule_page(rule) for rule in rules()}
    return {README: f"{before}{BEGIN}{table()}{END}{after}", **pages}


def main() -> int:
    """Writes or compares; 1 if something is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing, exit with 1 if a file is out of date")
    check = parser.parse_args().check
    made = files()
    gone = {*PAGES.glob("*.md"), *RULES.glob("*.md")} - set(made)
    stale = [path for path, text in made.items() if not path.exists() or path.read_text("utf-8") != text]
    if check:
        for path in (*stale, *gone):
            print(f"{path.relative_to(ROOT)} is out of date; run python scripts/render_docs.py", file=sys.stderr)
        return int(bool(stale or gone))
    for folder in (PAGES, RULES):
        folder.mkdir(parents=True, exist_ok=True)
    for path in stale:
        path.write_text(made[path], "utf-8")
    for path in gone:
        path.unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
