"""Run the command as `python -m anystar_batch`."""

from anystar_batch.cli import main

if __name__ == "__main__":
    main()
