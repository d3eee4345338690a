"""``python -m runner``, and the command ``runner``."""

import gc
import sys

# aiohttp imports aiodns wherever somebody else brought it, as RunPod's SDK does: a twentieth of the time until a batch
# sends its first request, for a resolver that `runner.exchange` does not use. In a process that is ours alone.
sys.modules.setdefault("aiodns", None)  # type: ignore[arg-type]

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
