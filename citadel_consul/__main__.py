"""``python -m citadel_consul`` is ``citadel``."""

from citadel_consul.cli.main import main

if __name__ == "__main__":
    main()
