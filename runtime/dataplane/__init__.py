"""Who is connected to whom: the switchboard, descriptors on their way, each process's endpoint, calls."""
