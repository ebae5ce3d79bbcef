"""`slabwire keys`: the folders of CURVE keys that graphs and their clients on other hosts need."""

from __future__ import annotations

from pathlib import Path

import click

from ..rendering.presentation import format_option, print_json, print_table, say
from ..subcommands import Subcommands

_FOLDER = click.argument("folder", type=click.Path(path_type=Path))


@click.group(cls=Subcommands)
def command() -> None:
    """Make and list CURVE keys, for graphs that other hosts may reach.

    `new` makes a graph's folder, `add` one for each client. No secret is ever printed, nothing is overwritten.
    """


@command.command()
@_FOLDER
@format_option
def new(folder: Path, form: str) -> None:
    """Make the FOLDER of a graph: SLABWIRE_KEYS=FOLDER slabwire run FILE --listen tcp://0.0.0.0:5555."""
    from ...runtime.remote.curve_keyring import new_server

    public = new_server(folder)
    text = (
        f"{folder}: public key {public}\n"
        f"let clients in: slabwire keys add {folder} CLIENT\n"
        f"then start the graph with SLABWIRE_KEYS={folder}"
    )
    say(form, text, folder=str(folder), public_key=public)


@command.command()
@_FOLDER
@click.argument("client")
@click.option("--output", type=click.Path(path_type=Path), help="The client's folder.  [default: ./CLIENT]")
@format_option
def add(folder: Path, client: str, output: Path | None, form: str) -> None:
    """Let CLIENT in to the graph of FOLDER, also one that is running, and make the folder that it connects with."""
    from ...runtime.remote.curve_keyring import add_client

    output = output or Path(client)
    public = add_client(folder, client, output)
    text = (
        f"{output}: public key {public}\n"
        f"take that folder to the client, over a safe way: connect('tcp://...', keys={str(output)!r})"
    )
    say(form, text, client=client, folder=str(output), public_key=public)


@command.command("list")
@_FOLDER
@format_option
def list_(folder: Path, form: str) -> None:
    """List whom the graph of FOLDER lets in. Who is to stay out: remove clients/CLIENT.key there."""
    from ...runtime.remote.curve_keyring import clients_of

    clients = clients_of(folder)
    if form == "json":
        print_json({"folder": str(folder), "clients": clients})
    elif clients:
        print_table(("client", "public key"), clients.items())
    else:
        click.echo(f"nobody may come in yet: slabwire keys add {folder} CLIENT")
