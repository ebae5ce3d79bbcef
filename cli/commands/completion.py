"""`slabwire completion`: what a shell needs to complete commands, options, graphs and actors."""

from __future__ import annotations

import os

import click

from ..rendering.presentation import format_option, say

INSTALL = {
    "bash": 'eval "$(slabwire completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(slabwire completion zsh)"    # in ~/.zshrc, after compinit',
    "fish": "slabwire completion fish > ~/.config/fish/completions/slabwire.fish",
}


@click.command(epilog="\b\n" + "\n".join(INSTALL.values()))
@click.argument("shell", type=click.Choice(list(INSTALL)), required=False)
@format_option
@click.pass_context
def command(ctx: click.Context, shell: str | None, form: str) -> None:
    """Print the completion for a shell, by default for yours ($SHELL)."""
    from click.shell_completion import get_completion_class

    shell = shell or os.path.basename(os.environ.get("SHELL", ""))
    found = get_completion_class(shell) if shell in INSTALL else None
    if found is None:
        raise click.UsageError(f"name a shell: {', '.join(INSTALL)}", ctx)
    script = found(ctx.find_root().command, {}, "slabwire", "_SLABWIRE_COMPLETE").source()
    say(form, script, shell=shell, install=INSTALL[shell], script=script)
