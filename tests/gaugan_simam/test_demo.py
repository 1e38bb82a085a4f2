"""The page that draws: what it serves, what it refuses. Over HTTP, without a browser."""

import io
import socket
import threading
import time
from contextlib import suppress
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import paddle
import pytest
from PIL import Image

from shared_metrics.errors import UserError
from shared_metrics.runs import checkpoint
from tests import chromium
from tests.gaugan_simam.networks import arrays, tiny


@pytest.fixture
def gaugan(paper):
    return paper("gaugan_simam")


def saved(gaugan, folder, **changes):
    """A checkpoint of a tiny generator of 64x32 px: classes 0 to 2, unknown 3."""
    arch = tiny(gaugan.model, **({"crop_size": 64, "aspect_ratio": 2.0} | changes))
    paddle.seed(0)
    state = {"generator": arrays(gaugan.model.Generator(arch)), "architecture": arch.to_dict()}
    return checkpoint.save_checkpoint(folder, 1, state, 0)


class Served:
    """The application behind a real server on a free port."""

    def __init__(self, gaugan, painter, names, first=None):
        app = gaugan.demo.create_app(painter, names, first=first)
        self.server = gaugan.demo.open_server("127.0.0.1", 0, app)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def get(self, path, body=None):
        """(status, type, body)."""
        try:
            with urlopen(Request(self.url + path, body), timeout=60) as answer:
                return answer.status, answer.headers.get_content_type(), answer.read()
        except HTTPError as error:
            return error.code, error.headers.get_content_type(), error.read()


@pytest.fixture
def served(gaugan, tmp_path, request):
    painter = gaugan.painter.Painter(saved(gaugan, tmp_path, **getattr(request, "param", {})))
    served = Served(gaugan, painter, painter.names("sky, tree ,sea"))
    served.painter = painter
    yield served
    served.server.shutdown()
    served.server.server_close()


def png_of(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, format="PNG")
    return file.getvalue()


def test_the_page_stands_alone(served):
    status, kind, page = served.get("/")
    assert (status, kind) == (200, "text/html")
    for outside in (b"http:", b"https:", b"src=", b"@import"):  # nothing is loaded from elsewhere
        assert outside not in page
    with urlopen(served.url + "/") as answer:
        assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert served.get("/demo.py")[0] == 404 and served.get("/static/demo.py")[0] == 404


def test_settings(served):
    import json

    found = json.loads(served.get("/settings")[2])
    assert (found["width"], found["height"], found["latent"]) == (64, 32, False)
    assert [c["name"] for c in found["classes"]] == ["sky", "tree", "sea", "unknown"]
    assert len({tuple(c["colour"]) for c in found["classes"]}) == 4


def test_a_posted_map_is_drawn(served):
    labels = np.random.default_rng(0).integers(0, 4, (32, 64))
    status, kind, body = served.get("/photo", labels.astype(np.uint8).tobytes())
    assert (status, kind) == (200, "image/png")
    image = np.asarray(Image.open(io.BytesIO(body)))
    assert np.array_equal(image, served.painter.paint(labels[None])[0]) and image.shape == (
        32,
        64,
        3,
    )
    assert image.std() > 1
    other = served.get("/photo", np.zeros(2048, np.uint8).tobytes())[2]
    assert other != body


def test_the_page_opens_on_a_map(gaugan, tmp_path):
    painter = gaugan.painter.Painter(saved(gaugan, tmp_path))
    ids = np.random.default_rng(0).integers(0, 3, (16, 32)).astype(np.uint8)
    Image.fromarray(ids).save(tmp_path / "map.png")
    first = gaugan.demo.read_map(tmp_path / "map.png", painter.arch)
    for given, expected in ((first, ids.repeat(2, 0).repeat(2, 1)), (None, np.zeros((32, 64)))):
        served = Served(gaugan, painter, painter.names(), given)
        body = served.get("/first")[2]
        assert np.array_equal(np.frombuffer(body, np.uint8).reshape(32, 64), expected)
        assert (b'"first":true' in served.get("/settings")[2]) == (given is not None)
        served.server.shutdown()
        served.server.server_close()
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save(tmp_path / "map.png")
    with pytest.raises(UserError, match="map.png"):
        gaugan.demo.read_map(tmp_path / "map.png", painter.arch)


def test_two_browsers_at_once(served):
    maps, answers = [bytes([k]) * 2048 for k in (0, 1, 2, 3)], {}

    def ask(k):
        answers[k] = served.get("/photo", maps[k])

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(4):
        image = np.asarray(Image.open(io.BytesIO(answers[k][2])))
        assert np.array_equal(image, served.painter.paint(np.full((1, 32, 64), k))[0])


def test_a_saved_map_opens_again(served):
    """A palette PNG of the ids; opened, any map is brought to the network's size by nearest
    neighbour.
    """
    labels = np.random.default_rng(1).integers(0, 4, (32, 64)).astype(np.uint8)
    status, kind, body = served.get("/map.png", labels.tobytes())
    image = Image.open(io.BytesIO(body))
    assert (status, kind, image.mode) == (200, "image/png", "P") and np.array_equal(
        np.asarray(image), labels
    )
    assert served.get("/ids", body)[2] == labels.tobytes()
    double = np.kron(labels, np.ones((2, 2), np.uint16)).astype(np.uint16)
    double[double == 3] = 255  # unknown
    assert served.get("/ids", png_of(double))[2] == labels.tobytes()


def test_what_is_wrong_is_refused_with_a_line(gaugan, served, monkeypatch):
    for path, body, told in (
        ("/photo", bytes(2047), "2047 bytes, not 64 x 32 = 2048"),
        ("/photo", bytes([4]) * 2048, "id 4 is out of range: the network knows 0 to 3"),
        ("/map.png", bytes([255]) * 2048, "id 255"),
        ("/ids", b"no picture", "this file is no picture"),
        ("/ids", png_of(np.full((8, 8), 7, np.uint8)), "this map: id 7 is out of range"),
        ("/ids", png_of(np.zeros((8, 8, 3), np.uint8)), "this map: a map of mode RGB"),
    ):
        status, kind, answer = served.get(path, body)
        assert (status, kind) == (400, "text/plain") and told in answer.decode(), path
        assert "Traceback" not in answer.decode() and "/tmp" not in answer.decode()
    assert served.get("/photo")[0] == 405
    monkeypatch.setattr(gaugan.demo, "MOST_PIXELS", 100)
    status, _, answer = served.get("/ids", png_of(np.zeros((10, 11), np.uint8)))
    assert status == 400 and b"11x10 pixels, more than the 100 allowed" in answer


def test_other_sites_are_refused(gaugan, tmp_path):
    """A foreign name led to this machine (DNS rebinding), and a foreign page that posts here."""
    painter = gaugan.painter.Painter(saved(gaugan, tmp_path))
    client = gaugan.demo.create_app(painter, painter.names()).test_client()
    for host, code in (
        ("127.0.0.1:7860", 200),
        ("[::1]:7860", 200),
        ("localhost", 200),
        ("evil.example:7860", 403),
    ):
        assert client.get("/settings", headers={"Host": host}).status_code == code, host
    for origin, code in (
        ("http://localhost:7860", 200),
        ("http://evil.example", 403),
        ("null", 403),
    ):
        headers = {"Host": "localhost:7860", "Origin": origin}
        assert client.post("/photo", data=bytes(2048), headers=headers).status_code == code, origin
    shared = gaugan.demo.create_app(painter, painter.names(), local=False).test_client()
    assert shared.get("/settings", headers={"Host": "gpu.example:7860"}).status_code == 200


def test_too_many_bytes_are_refused(gaugan, tmp_path, monkeypatch):
    monkeypatch.setattr(gaugan.demo, "MOST_BYTES", 5000)
    painter = gaugan.painter.Painter(saved(gaugan, tmp_path))
    client = gaugan.demo.create_app(painter, painter.names()).test_client()
    assert client.post("/photo", data=bytes(2048)).status_code == 200
    for path in ("/photo", "/ids", "/map.png"):
        assert client.post(path, data=bytes(5001)).status_code == 413


def test_maps_beyond_the_queue_are_told_to_wait(gaugan, tmp_path, monkeypatch):
    """One is drawn, one waits; two more are answered at once, and those in the queue in the end."""
    monkeypatch.setattr(gaugan.demo, "WAITING", 2)
    painter = gaugan.painter.Painter(saved(gaugan, tmp_path))
    go_on = threading.Event()
    drawing = []
    paint = painter.paint

    def slow(*args, **how):
        drawing.append(1)
        assert len(drawing) == 1  # one at a time
        go_on.wait(60)
        image = paint(*args, **how)
        drawing.pop()
        return image

    painter.paint = slow
    served = Served(gaugan, painter, painter.names())
    answers = []

    def ask():
        answers.append(served.get("/photo", bytes(2048)))

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for client in clients:
        client.start()
    while len(answers) < 2:
        time.sleep(0.01)
    assert [answer[0] for answer in answers] == [503, 503] and b"too many at once" in answers[0][2]
    assert served.get("/settings")[0] == 200
    go_on.set()
    for client in clients:
        client.join()
    assert [answer[0] for answer in answers[2:]] == [200, 200]
    assert served.get("/photo", bytes(2048))[0] == 200
    served.server.shutdown()
    served.server.server_close()


@pytest.mark.parametrize("sent", [b"POST /photo HT", b"POST /photo HTTP/1.0\r\n", b"body"])
def test_a_client_that_drips_is_dropped_and_leaves_its_place(gaugan, tmp_path, monkeypatch, sent):
    """Each byte in time, the whole never."""
    monkeypatch.setattr(gaugan.demo, "WAITING", 1)
    monkeypatch.setattr(gaugan.demo, "CONNECTIONS", 1)
    monkeypatch.setattr(gaugan.demo.Handler, "timeout", 1)
    painter = gaugan.painter.Painter(saved(gaugan, tmp_path))
    served = Served(gaugan, painter, painter.names())
    if sent == b"body":
        host = f"127.0.0.1:{served.server.server_port}"
        sent = f"POST /photo HTTP/1.0\r\nHost: {host}\r\nContent-Length: 2048\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", served.server.server_port), timeout=30) as slow:
        slow.sendall(sent)
        assert served.get("/settings")[0] == 503  # no place for a second connection
        with suppress(OSError):
            for _ in range(40):
                slow.sendall(b"x")
                time.sleep(0.1)
        with suppress(ConnectionError):
            while slow.recv(4096):
                pass
    monkeypatch.setattr(gaugan.demo.Handler, "timeout", 60)
    answer = (503,)
    while answer[0] == 503:  # until the place is left
        answer = served.get("/photo", bytes(2048))
    assert answer[0] == 200
    served.server.shutdown()
    served.server.server_close()


@pytest.mark.parametrize(
    "served", [{"use_vae": True, "aspect_ratio": 1.0, "crop_size": 32}], indirect=True
)
def test_a_seed_chooses_the_style(served):
    body = bytes(1024)
    first, same, other = (served.get(f"/photo?seed={k}", body)[2] for k in (0, 0, 1))
    assert first == same != other
    image = np.asarray(Image.open(io.BytesIO(other)))
    z = np.random.RandomState(1).randn(1, 4).astype(np.float32)
    assert np.array_equal(image, served.painter.paint(np.zeros((1, 32, 32), np.int64), z=z)[0])
    for wrong in ("-1", "x", "1" * 10, ""):
        assert served.get(f"/photo?seed={wrong}", body)[0] == 400


def test_names_of_the_classes(gaugan, tmp_path):
    painter = gaugan.painter.Painter(saved(gaugan, tmp_path))
    assert painter.names() == ["class 0", "class 1", "class 2", "unknown"]
    (tmp_path / "names.txt").write_text("Bäume\nsea\n\nsky\nnothing\n", encoding="utf-8")
    assert painter.names(str(tmp_path / "names.txt")) == ["Bäume", "sea", "sky", "nothing"]
    with pytest.raises(
        UserError, match="--class_names: 2 names, but the network has classes 0 to 2 and unknown"
    ):
        painter.names("a,b")


def test_a_taken_port_is_told(gaugan):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(UserError, match=f"--port {port}: cannot serve there"):
            gaugan.demo.open_server("127.0.0.1", port, None)
    with pytest.raises(UserError, match="--port 70000"):
        gaugan.demo.open_server("127.0.0.1", 70000, None)


# ---- in a browser ----


@pytest.fixture
def browser(tmp_path):
    if not chromium.find():
        pytest.skip(f"no browser ({', '.join(chromium.NAMES)})")
    browser = chromium.Chromium(tmp_path / "profile")
    yield browser
    browser.close()


def paint(browser, *points):
    """Drag over the map at these fractions of its width and height; until the photo is there."""
    left, top, scale = browser.js(
        "(b => { const s = Math.min(b.width / W, b.height / H);"
        " return [b.x + (b.width - W * s) / 2, b.y + (b.height - H * s) / 2, s]; "
        "})(canvas.getBoundingClientRect())"
    )
    browser.drag(*((left + x * 64 * scale, top + y * 32 * scale) for x, y in points))
    browser.wait("!drawing")


def counts(browser):
    """How many pixels of the map are of each of the four ids."""
    return browser.js("[0, 1, 2, 3].map(k => ids.filter(i => i === k).length)")


def test_painting_in_a_browser(served, browser):
    browser.open(served.url)
    browser.wait("typeof ids === 'object' && ids.length === 2048")
    browser.click("#classes button:nth-child(2)")
    browser.click("#clear")
    browser.wait(
        "!drawing && photo !== null && $('photo').naturalWidth === 64 && $('photo').naturalHeight "
        "=== 32"
    )
    assert counts(browser) == [0, 2048, 0, 0]

    browser.click("#classes button:nth-child(3)")
    browser.js("$('size').value = 8")
    paint(browser, (0.25, 0.5), (0.5, 0.5))
    _, ground, sea, _ = counts(browser)
    assert ground + sea == 2048 and 150 < sea < 210  # 16 x 8 px and two half discs: 178
    shown = browser.js("new Set(view.getImageData(0, 0, W, H).data.reduce((a, v, i, d) =>"
                       " i % 4 ? a : [...a, d.slice(i, i + 3).join()], [])).size")  # fmt: skip
    assert shown == 2  # no pixel between two colours
    browser.click("#classes button:nth-child(4)")
    browser.click("[data-tool=fill]")
    paint(browser, (0.4, 0.5))
    assert counts(browser) == [0, ground, 0, sea]
    browser.click("[data-tool=erase]")
    paint(browser, (0.25, 0.5))
    _, more, _, fewer = counts(browser)
    assert more > ground and more + fewer == 2048  # back to the class of the last Clear
    browser.click("#undo")
    browser.wait("!drawing")
    assert counts(browser) == [0, ground, 0, sea]

    labels = np.array(browser.js("Array.from(ids)")).reshape(32, 64)
    drawn = browser.js("photo.arrayBuffer().then(b => Array.from(new Uint8Array(b)))")
    image = np.asarray(Image.open(io.BytesIO(bytes(drawn))))
    assert np.array_equal(image, served.painter.paint(labels[None])[0])

    browser.js(
        "(t => { t.items.add(new File(['no picture'], 'x.png')); $('upload').files = t.files;"
        " $('upload').dispatchEvent(new Event('change')); })(new DataTransfer())"
    )
    browser.wait("$('status').className === 'error'")
    assert "this file is no picture" in browser.js("$('status').textContent")
    asked = [
        e["params"]["request"]["url"]
        for e in browser.events
        if e["method"] == "Network.requestWillBeSent"
    ]
    assert all(url.startswith((served.url, "blob:")) for url in asked) and len(asked) > 4
    assert not [e for e in browser.events if e["method"] == "Runtime.exceptionThrown"]


def test_the_first_map_is_drawn_in_a_browser(gaugan, tmp_path, browser):
    painter = gaugan.painter.Painter(saved(gaugan, tmp_path / "run"))
    first = np.arange(2048).reshape(32, 64) // 1024
    served = Served(gaugan, painter, painter.names(), first)
    browser.open(served.url)
    browser.wait("typeof ids === 'object' && ids.length === 2048")
    browser.wait("!drawing && photo !== null && $('photo').naturalWidth === 64")
    assert counts(browser) == [1024, 1024, 0, 0]
    served.server.shutdown()
    served.server.server_close()
