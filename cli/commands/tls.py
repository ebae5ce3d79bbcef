"""`slabwire tls`: what graphs need that terminate TLS."""

from __future__ import annotations

from pathlib import Path

import click

from ...runtime.errors import SlabwireError
from ..rendering.presentation import format_option, say
from ..subcommands import Subcommands


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
