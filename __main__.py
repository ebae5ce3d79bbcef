"""`python -m slabwire` is the command `slabwire`."""

from .cli import main

if __name__ == "__main__":
    main()
