"""Makes ``python -m redock`` the same as ``redock``."""

from redock.cli import main

if __name__ == "__main__":
    main()
