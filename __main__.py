"""`python -m slabwire` is the command `slabwire`."""

from .runtime.cli import main

if __name__ == "__main__":
    main()
