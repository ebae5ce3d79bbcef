"""What the processes of a graph say to each other: every message is a declared type, one file for each line.

| file | from, to | line |
| --- | --- | --- |
| `channel.py`: asks | worker or local client, supervisor | SEQPACKET |
| `channel.py`: offers | supervisor, worker or local client | SEQPACKET, with descriptors |
| `channel.py`: news | supervisor, worker or local client, unasked | SEQPACKET |
| `worker_line.py`: orders | supervisor, worker | ZeroMQ |
| `worker_line.py`: reports | worker, supervisor | ZeroMQ |
| `verbs.py` | CLI, clients and actors, supervisor | ZeroMQ |
| `owner.py` | owner, supervisor, both ways | stream socket |
| `gateway.py` | gateway, supervisor | stream socket |

A message is a NamedTuple. On the line it is a document, packed by msgpack: the name of the type, and its fields.
`schema.py` translates, and refuses what is no message of its line.
"""
