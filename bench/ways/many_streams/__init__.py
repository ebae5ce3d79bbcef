"""Ways to carry the items of many streams from the process that makes them to the one that writes them to sockets."""
