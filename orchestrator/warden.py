"""The program in whose children suspects run; a worker starts it, with the socket to it as standard input."""

import os
import socket
import sys
from functools import partial

from orchestrator.isolation.ward import live
from orchestrator.isolation.warden import Warden
from orchestrator.pools import open_pool
from shared.settings import load_settings
from shared.telemetry import configure_logging


def main() -> None:
    """Serve the worker until it is gone."""
    settings = load_settings()
    configure_logging(settings)
    with socket.socket(fileno=sys.stdin.fileno()) as control:
        Warden(control, partial(live, partial(open_pool, settings))).serve()
    # Python would take all it has imported apart first, while a stopping worker waits.
    os._exit(0)


if __name__ == "__main__":
    main()
