"""The options that several commands have, and those of a later version, refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from gradpass.errors import GradpassError

NOT_YET = "is not part of this version of gradpass"
LATER_COMMANDS = ("bench",)
FORMATS = ("text", "concise", "json", "sarif", "github", "markdown", "html", "model-explorer")

Command = Callable[..., Any]


class Commands(click.Group):
    """The commands; those of a later version are refused by name, so that nobody looks for a typing mistake."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, after a look at what is still to come."""
        if args and args[0] in LATER_COMMANDS:
            raise GradpassError(f"`gradpass {args[0]}` {NOT_YET}; `gradpass --help` lists what is")
        return super().resolve_command(ctx, args)


def later(*flags: str, **attributes: Any) -> Callable[[Command], Command]:
    """An option of a later version: not shown, and refused by name when given."""

    def refuse(ctx: click.Context, option: click.Parameter, value: Any) -> None:
        if value:
            raise GradpassError(f"{option.opts[0]} {NOT_YET}; leave it out")

    return click.option(*flags, callback=refuse, expose_value=False, hidden=True, **attributes)


def format_option(*formats: str) -> Callable[[Command], Command]:
    """`--format`: those that a command has; the others are known by name."""

    def known(ctx: click.Context, _: click.Parameter, value: str) -> str:
        if value not in formats:
            *first, last = formats
            choice = f"{', '.join(first)} or {last}"
            raise GradpassError(f"--format {value} is for `gradpass check`; `gradpass {ctx.info_name}` has {choice}")
        return value

    return click.option(
        "--format",
        "style",
        type=click.Choice(FORMATS),
        default="text",
        callback=known,
        metavar="F",
        help=f"{', '.join(formats)}.",
    )


target_argument = click.argument("target")
data_option = click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Inputs: of a live target by name or in order, labels last; of a model on disk by name, to cross-check with.",
)
entry_option = click.option(
    "--entry", metavar="NAME|all", help="The signature to follow (default: serving_default, or the only one)."
)
tensorflow_option = click.option(
    "--tensorflow", metavar="VERSION", help="Whose gradients: 2.18 to 2.21 (default: the one that wrote the model)."
)
mode_option = click.option(
    "--mode",
    type=click.Choice(["straight-through", "soft"]),
    default="straight-through",
    show_default=True,
    help="Keep every output bit for bit, or let the values become soft too.",
)
