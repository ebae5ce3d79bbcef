"""Benchmarks, each named by its topology; `slabwire bench` runs them."""

from __future__ import annotations

from importlib import import_module

import click
from click.shell_completion import CompletionItem

from ..runtime.spelling import near_or_all

# Module, name of the command in it, summary. A bench is imported when it is chosen: some need packages of an extra, and
# those of fidelity/ and pages/ stay in the checkout, because they need its tests and examples.
_BENCHES = {
    "ping_pong": (
        "topologies.ping_pong",
        "command",
        "Round trips between two processes that are awake, beside other ways.",
    ),
    "one_to_one": ("topologies.one_to_one", "command", "Small records and messages a second, one way."),
    "fan_out": ("topologies.fan_out", "command", "What a sender pays for 1 MiB to 1, 2 and 4 readers."),
    "forward": ("topologies.forward", "command", "Round trips through a chain of actors, without a copy."),
    "parked": (
        "topologies.parked",
        "command",
        "Round trips that find the other process asleep, beside a bare eventfd.",
    ),
    "actor_call": ("topologies.actor_call", "command", "Calls of an actor that echoes, beside Ray's and xoscar's."),
    "async_calls": (
        "topologies.async_calls",
        "command",
        "Calls of an actor by a program of asyncio, several in flight: CPU time of both.",
    ),
    "idle": ("topologies.idle", "command", "CPU time of a graph of 20 idle actors."),
    "start": ("topologies.start", "command", "Imports, and a graph of 10 small actors until it is ready."),
    "false_sharing": ("topologies.false_sharing", "command", "What two writers of one cache line cost each other."),
    "scaling": ("topologies.scaling", "command", "Cost of a message from 10 to 10 million, and from 1 to 64 edges."),
    "all": ("topologies.data_plane", "command", "All of the above, one after the other."),
    "placement": (
        "topologies.placement",
        "command",
        "Two actors on two cores or one, pinned or not; thread pools by the plan.",
    ),
    "streams": (
        "topologies.streams",
        "command",
        "Thousands of slow streams from actor to actor, beside queues, ZeroMQ and gRPC.",
    ),
    "ingress": (
        "topologies.ingress",
        "command",
        "Tokens of thousands of chat answers over TLS, beside uvicorn and granian.",
    ),
    "tls": (
        "topologies.tls",
        "command",
        "What TLS connections cost, beside nginx, HAProxy, asyncio, uvicorn and granian.",
    ),
    "chat": (
        "chat.chat",
        "command",
        "Tokens a second of a chat model through the whole stack, beside its engine alone.",
    ),
    "stalls": ("chat.stalls", "command", "How long a stream stands still for what another client sends."),
    "fidelity": (
        "fidelity.fidelity",
        "command",
        "The language model's logits beside its weights in float32, and llama.cpp's.",
    ),
    "footprint": (
        "chat.footprint",
        "command",
        "CPU time of an idle chat graph, and memory that a second replica adds.",
    ),
    "read-page": (
        "pages.read_page",
        "main",
        "Pages a second of examples/read_page.py, beside one straight script.",
    ),
}


class Benches(click.Group):
    """The benches of this folder."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(_BENCHES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _BENCHES:
            return None
        module, name, _ = _BENCHES[cmd_name]
        try:
            found: click.Command = getattr(import_module(f".{module}", __name__), name)
        except ImportError as error:
            raise click.ClickException(f"bench {cmd_name!r} is not available: {_missing(error)}") from error
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _BENCHES:
            raise click.UsageError(f"no bench {args[0]!r}{near_or_all(args[0], _BENCHES)}", ctx)
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Without importing them."""
        names = [
            CompletionItem(name, help=what) for name, (_, _, what) in _BENCHES.items() if name.startswith(incomplete)
        ]
        return names or super().shell_complete(ctx, incomplete)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, _, summary) in _BENCHES.items()])


def _missing(error: ImportError) -> str:
    """What a bench misses, and the remedy: the checkout, or a package of an extra."""
    if (error.name or "").startswith(f"{__name__}."):
        return (
            "it needs the tests and examples of the repository, which the installed package does not have; "
            "run `make setup-dev` and then `.venv/bin/slabwire bench` in a checkout"
        )
    return f"{error}; pip install 'slabwire[examples,bench]', or `make setup-dev` in a checkout"


@click.command(cls=Benches)
def command() -> None:
    """Measure speed on this machine, beside other ways to do the same."""
