"""``python -m runner``, and the command ``runner``."""

import gc

# Imports make a hundred thousand objects that live as long as the process, and by default Python looks through them
# for garbage every 700, and once more at its end: a third of the time that `runner validate` takes.
gc.set_threshold(400_000, 20, 50)


def main() -> None:
    """Run the command line."""
    from runner import cli

    try:
        cli.main()
    finally:
        gc.freeze()


if __name__ == "__main__":
    main()
