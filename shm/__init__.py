"""Floor 1: memory. It knows the kernel and numpy, but neither actors nor ZeroMQ nor asyncio."""
