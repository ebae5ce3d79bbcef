"""`slabwire tls`: what graphs need that terminate TLS."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from ...runtime.control.verbs import Hello
from ...runtime.errors import SlabwireError
from ..rendering.choice import ask, base_name, name_argument, running_graph
from ..rendering.presentation import duration_text, format_option, print_json, print_table, say
from ..subcommands import Subcommands

_KEEPER = "TicketKeys"
# Enough to tell the keys of a ring apart.
_NAME_SHOWN = 8
_ANSWER_WITHIN_S = 10.0

_keeper_option = click.option("--keeper", metavar="ACTOR", help="The actor that keeps the keys, where several do.")


class NoTicketKeys(SlabwireError):
    """A graph of which no actor keeps ticket keys, or lets them be asked for."""

    code = "no_ticket_keys"


@click.group(cls=Subcommands)
def command() -> None:
    """Certificates and ticket keys of graphs that terminate TLS."""


@command.command("dev-cert")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--host", multiple=True, help="For this name or address as well as for this machine's loopback.")
@click.option(
    "--kind",
    type=click.Choice(["ecdsa", "ed25519", "rsa"]),
    multiple=True,
    default=["ecdsa"],
    show_default=True,
    help="Of its key; several make a certificate each.",
)
@format_option
def dev_cert(folder: Path, host: tuple[str, ...], kind: tuple[str, ...], form: str) -> None:
    """Make certificates in FOLDER/server, for development: Ingress(certificate="FOLDER/server").

    They are signed by an authority of this machine in FOLDER/authority, which is made at the first time. Nothing is
    overwritten: move FOLDER/server elsewhere for new certificates of the same authority.
    """
    try:
        from ...actors.ingress.certificates.authority import make_certificates
    except ImportError as error:
        raise SlabwireError(f"certificates cannot be made ({error}); pip install 'slabwire[ingress]'") from error
    made = make_certificates(folder.absolute(), host or ("localhost",), kind)
    text = (
        f"{made.server}: {', '.join(made.names)}; until {made.not_after:%Y-%m-%d}\n"
        f'serve it:    Ingress(certificate="{made.server}"); a graph that does so already takes it by itself\n'
        f"in the demo: CERTIFICATE={made.server} slabwire run examples/chat.py\n"
        f"trust it:    curl --cacert {made.trusted}\n"
        f"             SSL_CERT_FILE={made.trusted} python ...\n"
        "             a browser imports that file as an authority; all of a Debian system:\n"
        f"             cp {made.trusted} /usr/local/share/ca-certificates/slabwire.crt && update-ca-certificates\n"
        "Whoever has the authority's key can pose as any site to those who trust it: it lies beside, for you alone."
    )
    say(
        form,
        text,
        certificate=str(made.server),
        authority=str(made.trusted),
        new_authority=made.new_authority,
        names=list(made.names),
        not_after=made.not_after.isoformat(),
    )


@command.command()
@name_argument
@_keeper_option
@format_option
def status(name: str | None, keeper: str | None, form: str) -> None:
    """List the ticket keys of a running graph by the beginnings of their names. No secret is ever printed."""
    graph, told = _asked(name, keeper, "status")
    _print(graph, told, form)


@command.command()
@name_argument
@click.option("--revoke", metavar="KEY", help="Drop the key whose name begins so: its tickets are refused at once.")
@click.option("--reason", default="", help="Why, for the log; needed with --revoke.")
@_keeper_option
@format_option
def rotate(name: str | None, revoke: str | None, reason: str, keeper: str | None, form: str) -> None:
    """Seal tickets with the next key from now on: it is active once all processes know it.

    Sessions that have begun are still resumed, except by --revoke. The log of the keeper says who asked, and why.
    """
    if revoke is None:
        graph, told = _asked(name, keeper, "rotate", asked_by=_who(), reason=reason)
    elif not reason.strip():
        raise click.UsageError("--revoke needs a --reason: those who look for it later find it in the log")
    else:
        graph, told = _asked(name, keeper, "revoke", key=revoke, asked_by=_who(), reason=reason)
    _print(graph, told, form)


def _asked(name: str | None, keeper: str | None, port: str, **fields: Any) -> tuple[str, dict[str, Any]]:
    """The graph that is meant, and what the keeper of its keys answers."""
    from ...runtime.clients.client import Client

    graph = running_graph(name)
    meant = _keeper_of(graph, keeper, port)
    with Client(graph, None) as client:
        told: dict[str, Any] = client.call(f"{meant}.{port}", timeout_s=_ANSWER_WITHIN_S, **fields)
    return graph, told


def _keeper_of(graph: str, named: str | None, port: str) -> str:
    spec = ask(graph, Hello())["spec"]
    keepers = [each["name"] for each in spec["actors"] if each["code"]["qualname"] == _KEEPER]
    if named is not None:
        keepers = [each for each in keepers if each == base_name(named)]
    if not keepers:
        raise NoTicketKeys(f"graph {graph!r} has no such actor: add slabwire.actors.ingress.{_KEEPER} to it")
    if len(keepers) > 1:
        raise click.UsageError(
            f"several actors of {graph} keep ticket keys, name one by --keeper: {', '.join(keepers)}"
        )
    exposed = [each["entry"] for each in spec["routes"][: spec["exposed"]]]
    if {"actor": keepers[0], "port": port} not in exposed:
        raise NoTicketKeys(f"graph {graph!r} does not expose {keepers[0]}.{port}; graph.expose(keys.{port}) does")
    return str(keepers[0])


def _who() -> str:
    """Whose command this is."""
    from ...runtime.host.ownership import name_of

    return name_of(os.getuid())


def _print(graph: str, told: dict[str, Any], form: str) -> None:
    if form == "json":
        print_json({"graph": graph, **told})
        return
    now = time.time()
    print_table(("key", "state", ">age", "then"), [_row(each, now) for each in told["keys"]])
    click.echo(
        f"next key active in {_until(told['next_rotation'], now)}; tickets are good for "
        f"{duration_text(told['lifetime_s'])}, a full handshake is due after {duration_text(told['chain_s'])}"
    )


def _row(key: dict[str, Any], now: float) -> tuple[str, str, str, str]:
    then = "active until another is"
    if key["state"] == "pre-rotate":
        then = f"active in {_until(key['active'], now)}"
    elif key["expires"]:
        then = f"forgotten in {_until(key['expires'], now)}"
    return key["name"][:_NAME_SHOWN], key["state"], duration_text(max(0.0, now - key["created"])), then


def _until(unix_s: float, now: float) -> str:
    return duration_text(max(0.0, unix_s - now))
