import hashlib
import io
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import ClassVar

import pytest
import torch

import deeplabv3
from deeplabv3.config import BACKBONES, ModelConfig
from deeplabv3.errors import CheckpointError, InputError
from deeplabv3.files import cache_dir
from deeplabv3.model import foreign, pretrained
from deeplabv3.model.download import download
from deeplabv3.model.mobilenet import MobileNetV3
from deeplabv3.model.pretrained import FILES, backbone_file, load_backbone
from deeplabv3.model.resnet import ResNet
from deeplabv3.model.unpickling.convert import convert
from tests.model import peers

CONFIG = ModelConfig(backbone="resnet18", width=16)


@pytest.fixture(autouse=True)
def here(monkeypatch):
    """Files are unpickled in this process, which is faster; test_hostile.py does it as users do."""
    monkeypatch.setattr(foreign, "unpickle", convert)


@pytest.fixture
def weights(tmp_path):
    """A file in the form of torchvision's: plain tensors by name, with the ImageNet classifier."""
    torch.manual_seed(1)
    tensors = dict(ResNet(CONFIG).state_dict())
    tensors |= {"fc.weight": torch.zeros(10, 32), "fc.bias": torch.zeros(10)}
    path = tmp_path / "weights.pth"
    torch.save(tensors, path)
    return path


@pytest.fixture
def published(tmp_path, monkeypatch, weights):
    """A server, as a folder, that has the file under a name with the right digits."""
    digits = hashlib.sha256(weights.read_bytes()).hexdigest()[:8]
    server = tmp_path / "server"
    server.mkdir()
    weights.rename(server / f"resnet18-{digits}.pth")
    monkeypatch.setattr(pretrained, "BASE_URL", f"{server.as_uri()}/")
    monkeypatch.setitem(FILES["imagenet"], "resnet18", f"resnet18-{digits}.pth")
    monkeypatch.setenv("DEEPLABV3_CACHE", str(tmp_path / "cache"))
    return server / f"resnet18-{digits}.pth"


def test_every_depth_has_weights():
    assert set(FILES["imagenet"]) == set(BACKBONES)


def test_file_is_downloaded_once(published, tmp_path):
    path = backbone_file("resnet18", "imagenet")
    assert path.parent == tmp_path / "cache"
    assert path.read_bytes() == published.read_bytes()
    published.unlink()
    assert backbone_file("resnet18", "imagenet") == path


def test_digits_of_another_name_may_be_a_date(tmp_path):
    (tmp_path / "resnet18-20240101.pth").touch()
    assert backbone_file("resnet18", str(tmp_path / "resnet18-20240101.pth")).name == "resnet18-20240101.pth"


def test_own_checkpoint_is_no_backbone(tmp_path):
    model = deeplabv3.DeepLabV3(ModelConfig(backbone="resnet18", aspp_channels=8))
    model.save(tmp_path / "own.safetensors")
    with pytest.raises(
        CheckpointError, match="own.safetensors is a whole network and no backbone alone; begin with it"
    ):
        load_backbone(model.backbone, tmp_path / "own.safetensors")


def test_cache_follows_the_users_settings(monkeypatch, tmp_path):
    monkeypatch.delenv("DEEPLABV3_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "deeplabv3"


def test_without_network_the_message_says_which_file_goes_where(published, tmp_path):
    published.unlink()
    with pytest.raises(InputError, match="put it at .*cache/resnet18-.*, or give a local file") as caught:
        backbone_file("resnet18", "imagenet")
    assert published.name in str(caught.value)
    assert "cannot be fetched ([Errno 2] No such file or directory: " in str(caught.value)
    assert not list((tmp_path / "cache").glob("*.pth"))


def test_damaged_download_is_refused_and_not_kept(published, tmp_path):
    content = published.read_bytes()
    published.write_bytes(content[:-1] + b"x")
    wrong = "[0-9a-f]{8}... instead of [0-9a-f]{8}...: its SHA-256 is wrong"
    with pytest.raises(InputError, match=f"{wrong}.; try again, or fetch it elsewhere and put it at .*resnet18-"):
        backbone_file("resnet18", "imagenet")
    assert not list((tmp_path / "cache").iterdir())
    published.write_bytes(content)
    assert backbone_file("resnet18", "imagenet").is_file()


def test_download_that_breaks_off_says_so(published, tmp_path, monkeypatch):
    class Broken(io.BytesIO):
        headers: ClassVar = {"Content-Length": "1000"}

    monkeypatch.setattr("urllib.request.urlopen", lambda *_, **__: Broken(bytes(400)))
    with pytest.raises(
        InputError, match="it ended after 400 of 1,000 bytes.; try again, or fetch it elsewhere and put"
    ):
        backbone_file("resnet18", "imagenet")
    assert [path.stat().st_size for path in (tmp_path / "cache").iterdir()] == [400]
    assert not list((tmp_path / "cache").glob("resnet*"))


class Server(BaseHTTPRequestHandler):
    """Gives a file in ranges."""

    content: ClassVar = b""
    asked: ClassVar[list[str | None]] = []

    def do_GET(self):
        self.asked.append(self.headers["Range"])
        start = int((self.headers["Range"] or "bytes=0-").removeprefix("bytes=").rstrip("-"))
        if start >= len(self.content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(self.content) - start))
        self.end_headers()
        time.sleep(0.2)  # so that whoever does not wait is caught
        self.wfile.write(self.content[start:])

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def server(weights):
    """A real server of the file, and its address."""
    Server.content, Server.asked = weights.read_bytes(), []
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as http:
        Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/weights.pth"
        http.shutdown()


@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_interrupted_download_goes_on_where_it_was(server, weights, tmp_path, share):
    there = int(share * len(Server.content))
    if there:
        (tmp_path / ".got.pth.partial").write_bytes(Server.content[:there])
    download(server, tmp_path / "got.pth")
    assert (tmp_path / "got.pth").read_bytes() == Server.content
    assert Server.asked == [f"bytes={there}-" if there else None]
    assert not (tmp_path / ".got.pth.partial").exists()


def test_of_several_processes_one_downloads_and_the_others_wait(server, tmp_path, capsys):
    with ThreadPoolExecutor(4) as pool:  # locks of a file hold between any two that opened it
        list(pool.map(lambda _: download(server, tmp_path / "got.pth"), range(4)))
    assert (tmp_path / "got.pth").read_bytes() == Server.content
    assert Server.asked == [None]
    assert not (tmp_path / ".got.pth.partial").exists()
    assert f"note: waiting for another process that downloads into {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("error", [OSError(95, "no locks here"), ImportError("no fcntl")])
def test_download_without_locks(server, tmp_path, monkeypatch, error):
    class NoLocks:
        LOCK_EX = LOCK_NB = LOCK_UN = 0

        def flock(self, *_):
            raise error

    def found(name):
        if isinstance(error, ImportError):
            raise error
        return NoLocks()

    monkeypatch.setattr("deeplabv3.files.import_module", found)
    download(server, tmp_path / "got.pth")
    assert (tmp_path / "got.pth").read_bytes() == Server.content


def test_damaged_file_in_the_cache_is_refused(published):
    path = backbone_file("resnet18", "imagenet")
    path.write_bytes(b"x")
    digits = path.stem.removeprefix("resnet18-")
    with pytest.raises(CheckpointError, match=f"is damaged: its SHA-256 is 2d711642... instead of {digits}...; delete"):
        backbone_file("resnet18", "imagenet")


def test_other_names_carry_no_digits(weights):
    path = weights.rename(weights.with_name("net-20240115.pth"))
    assert backbone_file("resnet18", str(path)) == path


def test_local_file_is_taken_as_it_is(weights):
    assert backbone_file("resnet18", str(weights)) == weights


@pytest.mark.parametrize(
    ("backbone", "name", "message"),
    [
        ("resnet18", "imagenet-v2", "no imagenet-v2 weights of resnet18; they exist for resnet50, resnet101"),
        ("resnet18", "coco", "backbone_weights is 'coco'; give imagenet, imagenet-v2, none, or the path"),
    ],
)
def test_unknown_weights(backbone, name, message):
    with pytest.raises(InputError, match=message):
        backbone_file(backbone, name)


def test_backbone_gets_the_weights(weights):
    torch.manual_seed(2)
    backbone = ResNet(CONFIG)
    load_backbone(backbone, weights)
    stored = torch.load(weights, weights_only=True)
    for name, value in backbone.state_dict().items():
        assert torch.equal(value, stored[name]), name


def test_old_file_without_counters(weights):
    stored = torch.load(weights, weights_only=True)
    torch.save({name: value for name, value in stored.items() if "num_batches" not in name}, weights)
    load_backbone(ResNet(CONFIG), weights)


def test_weights_of_another_network(weights):
    with pytest.raises(CheckpointError, match=r"does not fit this backbone: .*is missing.*more; give weights of its"):
        load_backbone(ResNet(ModelConfig(backbone="resnet34", width=16)), weights)


def test_whole_network_is_named(tmp_path):
    torch.save({f"backbone.{name}": value for name, value in ResNet(CONFIG).state_dict().items()}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth is a whole network and no backbone .* by --weights .*w\.pth"):
        load_backbone(ResNet(CONFIG), tmp_path / "w.pth")


def test_weights_of_another_width(weights):
    with pytest.raises(CheckpointError, match=r"conv1.weight is \(16, 3, 7, 7\) instead of \(32, 3, 7, 7\)"):
        load_backbone(ResNet(ModelConfig(backbone="resnet18", width=32)), weights)


@pytest.mark.parametrize(("theirs", "ours"), [("deep", "conv7"), ("conv7", "deep")])
def test_weights_of_another_stem(tmp_path, theirs, ours):
    state = ResNet(replace(CONFIG, stem=theirs)).state_dict()
    as_timm = {"stem.7.": "bn1.", "stem.": "conv1."}
    for ours_begins, begins in as_timm.items():
        state = {
            begins + name.removeprefix(ours_begins) if name.startswith(ours_begins) else name: value
            for name, value in state.items()
        }
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(
        CheckpointError, match=f"w.pth does not fit this backbone: .*deep stem, so give --stem {theirs}$"
    ):
        load_backbone(ResNet(replace(CONFIG, stem=ours)), tmp_path / "w.pth")


class Harmful:
    """What unpickling this would call."""

    def __reduce__(self):
        return (print, ("code was run",))


@pytest.mark.parametrize("values", [{"a": Harmful()}, [torch.zeros(1)], {"a": 1}])
def test_anything_but_named_tensors_is_refused(tmp_path, values, capsys):
    torch.save(values, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"a\.pth"):
        load_backbone(ResNet(CONFIG), tmp_path / "a.pth")
    assert "code was run" not in capsys.readouterr().out


@pytest.mark.parametrize("output_stride", [pytest.param(8, marks=pytest.mark.slow), 16, 32])
@pytest.mark.parametrize(
    ("name", "stem"),
    [("resnet18", "conv7"), pytest.param("resnet50", "conv7", marks=pytest.mark.slow), ("resnet50c", "deep")],
)
def test_backbone_of_timm(tmp_path, name, stem, output_stride):
    timm = pytest.importorskip("timm")
    theirs = peers.randomised(timm.create_model(name, pretrained=False, output_stride=output_stride))
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    backbone = ResNet(ModelConfig(backbone=name.removesuffix("c"), output_stride=output_stride, stem=stem)).eval()
    load_backbone(backbone, tmp_path / "timm.pth")
    pixels = torch.rand(1, 3, 65, 97)
    with torch.no_grad():
        torch.testing.assert_close(backbone(pixels), theirs.forward_features(pixels), rtol=1e-4, atol=1e-4)


def test_resnet_d_of_timm_is_refused(tmp_path):
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("resnet50d", pretrained=False).state_dict(), tmp_path / "d.pth")
    backbone = ResNet(ModelConfig(backbone="resnet50", stem="deep"))
    with pytest.raises(CheckpointError, match=r"its shortcuts average \(ResNet-D\), and ours do not"):
        load_backbone(backbone, tmp_path / "d.pth")


def test_backbone_of_torchvisions_mobilenet(tmp_path):
    from torchvision.models import mobilenet_v3_large

    theirs = peers.randomised(mobilenet_v3_large(weights=None))
    torch.save(theirs.state_dict(), tmp_path / "m.pth")
    backbone = MobileNetV3(ModelConfig(backbone="mobilenet_v3_large", output_stride=32)).eval()
    load_backbone(backbone, tmp_path / "m.pth")
    pixels = torch.rand(1, 3, 65, 97)
    with torch.no_grad():
        torch.testing.assert_close(backbone.features(pixels).last, theirs.features(pixels), rtol=1e-4, atol=1e-4)
