"""Paint a label map in the browser, see the photo.   cd gaugan_simam && python demo.py
--weight_path W.pdparams

The page is served on this machine alone (127.0.0.1) unless --host says otherwise. It loads nothing
from elsewhere.
"""

import io
import logging
import re
import socket
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

import numpy as np
from flask import Flask, Response, g, jsonify, request
from PIL import Image
from werkzeug.exceptions import HTTPException
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from predict import STANDS_FOR, network_flags
from shared_metrics import needs, process
from shared_metrics.errors import UserError
from shared_metrics.flags import Number, new_parser
from shared_metrics.images import opened
from shared_metrics.label_maps import read_label, resize_ids
from shared_metrics.testing import begin, latents

PAGE = Path(__file__).with_name("demo.html")
MOST_BYTES = 2**25  # of one request
MOST_PIXELS = 2**24  # of a map that is read in: 4096x4096
MOST_CLASSES = 256  # the page sends an id as one byte
WAITING = 8  # maps that are read, wait or are drawn at a time; one of them is drawn
CONNECTIONS = 64  # open at a time
SECONDS = 20  # in which a request must have come, and then its answer must be taken
BUSY = "too many at once; try again in a moment"
LOCAL = ("127.0.0.1", "localhost", "::1")
# The page may talk to its own server and show what it drew itself, nothing else.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "connect-src 'self'; img-src blob:"
)


# fmt: off
def parse_args(argv=None):
    """The flags as a namespace."""
    p = new_parser(__doc__.partition("   ")[0], "python demo.py --weight_path W [flags]")
    network_flags(p)
    p.add_argument("--class_names", default="",
                   help="one name a class, in order: joined by commas, or a file with one a line")
    p.add_argument("--map", default="", help="label map that the page opens with (default: blank)")
    p.add_argument("--host", default="127.0.0.1",
                   help="address to serve on; 0.0.0.0 lets other machines in")
    p.add_argument("--port", type=Number(int, 0, 2**16), default=7860,
                   help="port to serve on; 0 takes a free one")
    words = sys.argv[1:] if argv is None else [str(word) for word in argv]
    args = p.parse_args(words)
    needs.check(args, needs.given(p, words), {}, STANDS_FOR)
    return args
# fmt: on


def create_app(painter, names, local=True, first=None):
    """The Flask application.

    Args: painter, `painter.Painter`; names, of its label ids (`Painter.names`); local, answer to
        this machine's own names alone, and to no page of another site that the user's browser has
        open; first, ids (H, W) of the map that the page opens with (None: all of class 0).

    GET / is the page, GET /settings what it needs to know, GET /first its first map. A map travels
        as its ids, a byte each, row by row: POST /photo?seed=0 answers it with a PNG of the photo,
        POST /map.png with a palette PNG of the ids, which
    POST /ids (any label map as a file) turns back, resized to the network's size. Mistakes are
    answered with 400 (413 where too much is sent) and a line of text, maps beyond WAITING with 503.
    """
    from trainer import colourise

    arch, lock = painter.arch, threading.Lock()
    places = threading.BoundedSemaphore(WAITING)
    if arch.nc > MOST_CLASSES:
        raise UserError(
            f"--weight_path: the page takes networks of at most {MOST_CLASSES} classes, not "
            f"{arch.nc}"
        )
    palette = colourise(np.arange(arch.nc))
    app = Flask(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MOST_BYTES

    @app.before_request
    def check_host():
        host, origin = request.host, request.headers.get("Origin")
        if (
            local and re.sub(r":\d+$", "", host).strip("[]") not in LOCAL
        ):  # another site's name, led to this machine
            return Response(
                "not this machine's name; --host 0.0.0.0 serves others", 403, mimetype="text/plain"
            )
        if local and origin and origin.partition("://")[2] != host:
            return Response("another site's page may not ask", 403, mimetype="text/plain")

    @app.before_request
    def take_place():
        g.placed = request.method == "POST" and places.acquire(blocking=False)
        if request.method == "POST" and not g.placed:
            return Response(BUSY, 503, mimetype="text/plain", headers={"Retry-After": "2"})

    @app.teardown_request
    def leave_place(error):
        if g.pop("placed", False):
            places.release()

    @app.get("/")
    def page():
        return Response(
            PAGE.read_bytes(), mimetype="text/html", headers={"Content-Security-Policy": POLICY}
        )

    @app.get("/settings")
    def settings():
        height, width = arch.size
        classes = [
            {"id": i, "name": names[i], "colour": palette[i].tolist()} for i in range(arch.nc)
        ]
        known = {"width": width, "height": height, "classes": classes, "latent": arch.use_vae}
        return jsonify(known | {"first": first is not None})

    @app.get("/first")
    def first_map():
        labels = np.zeros(arch.size) if first is None else first
        return bytes_of(labels)

    @app.post("/photo")
    def photo():
        labels = read_posted(request.get_data(), arch)
        with lock:  # one picture at a time
            image = painter.paint(labels[None], z=latent(request.args.get("seed", "0"), arch))[0]
        return png(Image.fromarray(image))

    @app.post("/map.png")
    def map_png():
        image = Image.fromarray(read_posted(request.get_data(), arch).astype(np.uint8))
        image.putpalette(palette.tobytes())
        return png(image)

    @app.post("/ids")
    def ids():
        data = request.get_data()
        with lock:
            labels = read_file(data, arch)
        return bytes_of(labels)

    @app.errorhandler(UserError)
    def mistake(error):
        return Response(str(error), 400, mimetype="text/plain")

    @app.errorhandler(HTTPException)
    def refused(error):
        line = f"{error.code} {error.name}"
        if error.code == 413:
            line = f"more than {MOST_BYTES >> 20} MB; send less"
        return Response(line, error.code, mimetype="text/plain")

    return app


def bytes_of(labels):
    """The answer that holds ids (H, W), a byte each."""
    return Response(labels.astype(np.uint8).tobytes(), mimetype="application/octet-stream")


def read_posted(data, arch):
    """Ids int64 (H, W) of the network's size out of the bytes that the page sent. Raises:
    UserError.
    """
    height, width = arch.size
    if len(data) != height * width:
        raise UserError(
            f"the map has {len(data)} bytes, not {width} x {height} = {height * width}: one a pixel"
        )
    labels = np.frombuffer(data, np.uint8).astype(np.int64).reshape(height, width)
    if labels.max() >= arch.nc:
        raise UserError(f"id {labels.max()} is out of range: the network knows 0 to {arch.nc - 1}")
    return labels


def read_file(data, arch):
    """Ids int64 (H, W), resized to the network's size, of a label map's file. Raises: UserError."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "map"
        path.write_bytes(data)
        try:
            with opened(path) as image:
                width, height = image.size
        except UserError:
            raise UserError(
                "this file is no picture that can be read here; give a label map, such as a PNG "
                "with one id a pixel"
            ) from None
        if width * height > MOST_PIXELS:
            raise UserError(
                f"this map has {width}x{height} pixels, more than the {MOST_PIXELS} allowed; "
                "shrink it"
            )
        try:
            labels = read_label(path, arch.label_nc, arch.contain_dontcare_label)
        except UserError as error:
            raise UserError(str(error).replace(str(path), "this map")) from None
    return resize_ids(labels, *arch.size[::-1])


def read_map(path, arch):
    """Ids int64 (H, W) of a label map, resized to the network's size. Raises: UserError."""
    labels = read_label(Path(path).expanduser(), arch.label_nc, arch.contain_dontcare_label)
    return resize_ids(labels, *arch.size[::-1])


def latent(seed, arch):
    """z (1, z_dim) of the seed in a request, None where the network takes none. Raises:
    UserError.
    """
    if not arch.use_vae:
        return None
    if not (seed.isdecimal() and len(seed) < 10):
        raise UserError(f"seed {seed[:20]}: must be a whole number of at most nine digits")
    return latents([int(seed)], arch.z_dim)


def png(image):
    """The picture as an answer."""
    file = io.BytesIO()
    image.save(file, format="PNG")
    return Response(file.getvalue(), mimetype="image/png", headers={"Cache-Control": "no-store"})


class Handler(WSGIRequestHandler):
    """Drops slow clients: what has not come `timeout` seconds after the connection is not read, and
    an answer that is not taken in as many is lost.
    """

    timeout = SECONDS  # of each read, and of the whole of a write

    def setup(self):
        super().setup()
        self.clock = threading.Timer(self.timeout, self.stop_reading)
        self.clock.daemon = True
        self.clock.start()

    def stop_reading(self):
        """Read no more from this client, who may still be answered."""
        with suppress(OSError):  # gone already
            self.connection.shutdown(socket.SHUT_RD)

    def finish(self):
        self.clock.cancel()
        super().finish()


class Server(ThreadedWSGIServer):
    """Answers several connections at once, CONNECTIONS at the most."""

    def __init__(self, host, port, app):
        self.places = threading.BoundedSemaphore(CONNECTIONS)
        super().__init__(host, port, app, handler=Handler)

    def process_request(self, request, client_address):
        if self.places.acquire(blocking=False):
            return super().process_request(request, client_address)
        with suppress(OSError):
            request.sendall(f"HTTP/1.0 503 Busy\r\nConnection: close\r\n\r\n{BUSY}".encode())
        self.shutdown_request(request)

    def process_request_thread(self, request, client_address):
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.places.release()


def open_server(host, port, app):
    """A `Server`. Raises: UserError when the address is not free."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:  # werkzeug would exit by itself
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"--host {host} --port {port}: cannot serve there ({reason}); give another port"
        ) from None
    return Server(host, port, app)


def main(argv=None):
    """Load the network, serve the page until Ctrl-C."""
    args = parse_args(argv)
    begin(args)
    from painter import load_painter

    painter = load_painter(args)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # no line for every request
    first = read_map(args.map, painter.arch) if args.map else None
    app = create_app(painter, painter.names(args.class_names), args.host in LOCAL, first)
    server = open_server(args.host, args.port, app)
    painter.expect(float("inf"))
    labels = np.zeros(painter.arch.size, np.int64) if first is None else first
    painter.paint(labels[None], z=latent("0", painter.arch))  # seconds, before anybody waits
    shown = f"[{args.host}]" if ":" in args.host else args.host
    print(f"open http://{shown}:{server.server_port} in a browser; Ctrl-C ends", flush=True)
    if args.host not in LOCAL:
        print(
            f"--host {args.host}: whoever reaches this address can use the page; there is no "
            "password",
            flush=True,
        )
    server.serve_forever()


if __name__ == "__main__":
    process.command(main)()
