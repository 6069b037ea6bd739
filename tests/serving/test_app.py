"""What the service answers, and who gets an answer."""

import errno
import io
import json
import os
import re
import socket
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deeplabv3.cli import main, parse
from deeplabv3.config import ServeConfig
from deeplabv3.errors import InputError
from deeplabv3.serving import decoders
from deeplabv3.serving.guards import HEADERS, bracketed, read_token
from deeplabv3.serving.server import bound, server_of
from deeplabv3.serving.service import Service
from tests.serving.conftest import form, heard, picture, pixels_of, png

IMAGE = png(picture())


def test_mask_is_that_of_the_model(served, model):
    reply = served.segment(IMAGE)
    assert (reply.status, reply.headers["content-type"]) == (200, "image/png")
    prediction = model.predict(picture())
    assert len(prediction.shares) > 2
    assert (pixels_of(reply.body) == prediction.label_ids).all()


def test_every_output_is_that_of_the_model(served, model):
    prediction = model.predict(picture(), probabilities=True)
    assert (pixels_of(served.segment(IMAGE, "?output=color").body) == prediction.color()).all()
    bare = served.segment(IMAGE, "?output=overlay&opacity=0.3&legend=false")
    assert (pixels_of(bare.body) == prediction.overlay(0.3)).all()
    with_legend = served.segment(IMAGE, "?output=overlay")
    assert (pixels_of(with_legend.body) == prediction.overlay(0.55, legend=True)).all()
    assert served.segment(IMAGE, "?output=shares").json == {
        "height": 48,
        "width": 64,
        "shares": prediction.shares,
    }
    stored = np.load(io.BytesIO(served.segment(IMAGE, "?output=probabilities&classes=sky,road").body))
    assert stored["classes"].tolist() == ["sky", "road"]
    assert stored["probabilities"].dtype == np.float16
    np.testing.assert_allclose(stored["probabilities"], prediction.probabilities[[10, 0]], atol=1e-3)


def test_form_with_a_file_and_fields(served):
    body, kind = form(("image", "street.png", IMAGE), ("output", None, b"shares"))
    assert served.segment(body, Content_Type=kind).json == served.segment(IMAGE, "?output=shares").json


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("?output=mask", "output is 'mask'; Input should be 'label_ids', 'color', 'overlay', 'shares' or"),
        ("?opacity=2", "opacity is '2'; Input should be less than or equal to 1"),
        ("?path=/etc/passwd", "there is no field 'path'; there are output, classes, opacity, legend"),
        ("?output=probabilities", "classes has ''; give one or more of road, sidewalk, building"),
        ("?output=probabilities&classes=road,moon", "classes has 'moon'; give one or more of road, sidewalk"),
    ],
)
def test_impossible_parameter_is_refused(served, query, message):
    reply = served.segment(IMAGE, query)
    assert reply.status == 422
    assert reply.json["error"].startswith(message)


def test_impossible_field_is_refused(served):
    body, kind = form(("image", "street.png", IMAGE), ("url", None, b"http://127.0.0.1/"))
    reply = served.segment(body, Content_Type=kind)
    assert (reply.status, reply.json) == (
        422,
        {"error": "there is no field 'url'; there are output, classes, opacity, legend"},
    )


def test_no_parameter_is_a_path_or_an_address(served):
    """Of the whole interface, as it documents itself."""
    operations = [
        found for path in served.ask("GET", "/openapi.json").json["paths"].values() for found in path.values()
    ]
    names = {parameter["name"] for found in operations for parameter in found.get("parameters", [])}
    assert names == {"output", "classes", "opacity", "legend"}


def test_addresses_are_documented(served):
    document = served.ask("GET", "/openapi.json").json
    assert set(document["paths"]) == {"/segment", "/health", "/metrics", "/classes"}
    assert set(document["paths"]["/segment"]["post"]["requestBody"]["content"]) == {"image/*", "multipart/form-data"}


def test_classes_are_those_of_the_model(served, model):
    rows = served.ask("GET", "/classes").json
    assert [(row["id"], row["name"], tuple(row["color"])) for row in rows] == [
        (row.id, row.name, row.color) for row in model.label_set.evaluated
    ]


def test_health(served):
    assert served.ask("GET", "/health").json == {"status": "ok"}


def test_metrics_count(serve):
    with serve() as served:
        served.segment(IMAGE)
        served.segment(IMAGE[:-9])
        reply = served.ask("GET", "/metrics")
    samples = [sample for family in text_string_to_metric_families(reply.body.decode()) for sample in family.samples]
    values = {(sample.name, *sample.labels.values()): sample.value for sample in samples}
    assert values["deeplabv3_requests_total", "200"] == 1
    assert values["deeplabv3_requests_total", "422"] == 1
    assert values["deeplabv3_batch_images_count",] == 1
    assert values["deeplabv3_stage_seconds_count", "network"] == 1
    assert values["deeplabv3_images_in_work",] == 0


@pytest.mark.parametrize("path", ["/", "/docs", "/health", "/nothing"])
def test_every_answer_has_the_headers(served, path):
    reply = served.ask("GET", path)
    for name, value in HEADERS.items():
        assert reply.headers[name.lower()] == value or name == "Cache-Control"
    assert "server" not in reply.headers


@pytest.mark.parametrize("path", ["/", "/page.css", "/page.js", "/docs", "/docs.js"])
def test_pages_load_nothing_from_elsewhere(served, path):
    text = served.ask("GET", path).body.decode()
    assert not re.search(
        r"https?:|//[a-z]|@import|url\((?!#)", re.sub(r"(?m)^\s*//.*|http://www.w3.org/2000/svg", "", text)
    )


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "[::2]", ""])
def test_other_names_are_refused(served, host):
    reply = served.ask("GET", "/health", Host=host)
    assert reply.status == 421


@pytest.mark.parametrize(("host", "status"), [("127.0.0.2", 200), ("127.0.0.3", 421), ("evil.example", 421)])
def test_address_that_is_reached_is_served(serve, host, status):
    """All addresses of the machine are listened at, and only the one that is called is a name."""
    with serve("a" * 32, host="0.0.0.0") as served:
        with socket.create_connection(("127.0.0.2", served.port), timeout=60) as connection:
            connection.sendall(f"GET /health HTTP/1.1\r\nHost: {host}:{served.port}\r\n\r\n".encode())
            assert heard(connection).status == status


@pytest.mark.parametrize(
    ("host", "wanted"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "[::1]"),
        ("FD00:0::1", "[fd00::1]"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
    ],
)
def test_address_is_written_as_browsers_do(host, wanted):
    assert bracketed(host) == wanted


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:80",
        "127.0.0.1:9",
        "[::1]:80",
        "segment.example",
        "segment.example.:80",
        "[2001:db8::1]:80",
    ],
)
def test_own_names_are_served(serve, host):
    with serve(names=("segment.example.", "2001:DB8:0::1")) as served:
        assert served.ask("GET", "/health", Host=host).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
    ],
)
def test_pages_of_other_origins_are_refused(served, headers):
    assert served.segment(IMAGE, **headers).status == 403


def test_own_page_is_served(served):
    assert served.segment(IMAGE, Origin=f"http://127.0.0.1:{served.port}").status == 200
    assert "access-control-allow-origin" not in served.segment(IMAGE).headers


def test_token_is_needed(serve):
    with serve(token="0123456789abcdef") as served:
        assert served.ask("GET", "/health").status == 200
        assert served.ask("GET", "/").status == 200
        for path in ("/classes", "/metrics"):
            assert served.ask("GET", path).status == 401
        refused = served.segment(IMAGE, Authorization="Bearer 0123456789abcdeF")
        assert (refused.status, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert served.segment(IMAGE, Authorization="Bearer 0123456789abcdef").status == 200


def test_address_that_others_reach_needs_a_token(config, tmp_path, monkeypatch):
    monkeypatch.delenv("DEEPLABV3_TOKEN", raising=False)
    assert read_token(config) is None
    for host in ("0.0.0.0", "::", "192.168.1.2"):
        with pytest.raises(InputError, match=f"host is {host}, which other machines reach; give a token"):
            read_token(replace(config, host=host))
    monkeypatch.setenv("DEEPLABV3_TOKEN", "short")
    with pytest.raises(InputError, match="the token of \\$DEEPLABV3_TOKEN has 5 letters; give 16 or more"):
        read_token(config)
    path = tmp_path / "token"
    path.write_text("a" * 32 + "\n")
    assert read_token(replace(config, host="0.0.0.0", token_file=path)) == "a" * 32
    path.write_text("")
    with pytest.raises(InputError, match="has 0 letters"):
        read_token(replace(config, token_file=path))
    with pytest.raises(InputError, match="cannot be read as a token"):
        read_token(replace(config, token_file=tmp_path))


def test_default_address_is_local():
    config = parse("serve", ["model"])
    assert (config.host, config.is_local) == ("127.0.0.1", True)
    assert not ServeConfig(model="m", host="0.0.0.0").is_local


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"host": "localhost"}, "host is 'localhost'; give an IP address"),
        ({"port": 65536}, "port is 65536; give 0 to 65535"),
        ({"names": ("segment.example:80",)}, "names is 'segment.example:80'; give names of hosts, as in"),
        ({"names": ("http://segment.example",)}, "names is 'http://segment.example'; give names of hosts"),
        ({"queue_size": 0}, "queue_size is 0; give at least 1"),
        ({"max_pixels": 0}, "max_pixels is 0; give 1 to"),
        ({"idle_seconds": 0}, "idle_seconds is 0; give a finite number above 0"),
    ],
)
def test_impossible_option_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        ServeConfig(model="m", **options)


def test_taken_port_is_refused(config, served):
    with pytest.raises(InputError, match=f"127.0.0.1, port {served.port} cannot be listened at: .*; choose another"):
        bound(replace(config, port=served.port))


def test_port_that_is_taken_while_the_model_loads_is_told(config, model):
    """Linux lets two programs have an address until one listens."""
    with bound(config) as first:
        config = replace(config, port=first.getsockname()[1])
        with bound(config) as second:
            second.listen()
            with pytest.raises(InputError, match="cannot be listened at: Address already in use; choose another"):
                server_of(Service(config, model), None).run(sockets=[first])


def test_start_that_the_system_refuses_is_one_line_and_leaves_nothing(config, model, monkeypatch):
    real = decoders.Decoder
    started: list[decoders.Decoder] = []

    def second_is_refused(command):
        if started:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        started.append(real(command))
        return started[0]

    monkeypatch.setattr(decoders, "Decoder", second_is_refused)
    config = replace(config, num_decoders=2)
    with bound(config) as listener, pytest.raises(InputError, match="cannot start 2 decoders: Too many open files; "):
        server_of(Service(config, model), None).run(sockets=[listener])
    assert not started[0].is_alive


def test_missing_extra_is_named(monkeypatch, capsys):
    monkeypatch.setitem(__import__("sys").modules, "deeplabv3.serving.server", None)
    error = ModuleNotFoundError("no", name="uvicorn")

    def refuse(name, *rest):
        if name == "deeplabv3.serving.server":
            raise error
        return found(name, *rest)

    found = __import__
    monkeypatch.setattr("builtins.__import__", refuse)
    assert main(["serve", "model"]) == 2
    assert "uvicorn is not installed; it comes with: pip install 'deeplabv3[serve]'" in capsys.readouterr().err


def test_answers_are_json(served):
    for reply in (served.ask("GET", "/segment"), served.ask("GET", "/nothing"), served.segment(b"")):
        assert reply.status in (404, 405, 422)
        assert list(json.loads(reply.body)) == ["error"]
