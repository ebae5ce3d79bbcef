"""A command that has commands of its own. For a name that none of them has, it suggests the nearest."""

from __future__ import annotations

import click

from ..runtime.spelling import near_or_all


class Subcommands(click.Group):
    """Answers an unknown name as the root command does."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in self.commands and not name.startswith("-") and not ctx.resilient_parsing:
            raise click.UsageError(
                f"{ctx.command_path} has no command {name!r}{near_or_all(name, list(self.commands))}", ctx
            )
        return super().resolve_command(ctx, args)
