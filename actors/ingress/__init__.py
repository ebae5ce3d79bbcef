"""The way in from the network: TLS, HTTP and OpenAI's interface, as one actor.

Needs `pip install slabwire[ingress]` where it runs; a graph can be defined and checked without it.
"""

from .ingress import Ingress
from .tickets.keeper import TicketKeys

__all__ = ["Ingress", "TicketKeys"]
