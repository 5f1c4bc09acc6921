"""Show the built book on this machine: ``python tools/serve.py 8000``."""

import functools
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SITE = Path(__file__).parents[1] / "_build" / "html"


def serve(port: str) -> None:
    """Serve the site until Ctrl-C; a port that cannot be had ends the program in one line."""
    handler = functools.partial(SimpleHTTPRequestHandler, directory=SITE)
    try:
        server = ThreadingHTTPServer(("127.0.0.1", int(port)), handler)
    except (OSError, OverflowError, ValueError) as error:
        sys.exit(f"PORT: expected a free port, got {port} ({error}). Another: make serve PORT=8001")
    with server:
        print(f"Open http://127.0.0.1:{server.server_port}/ and stop with Ctrl-C", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    serve(sys.argv[1])
