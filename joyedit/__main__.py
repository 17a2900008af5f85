"""`python -m joyedit` is the command `joyedit`."""

from joyedit.cli.main import main

if __name__ == "__main__":
    main()
