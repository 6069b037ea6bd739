"""The command as a user types it: real processes for what leaves the process, calls for the rest."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from deeplabv3 import __version__
from deeplabv3.arguments import make_parser
from deeplabv3.cli import VERBS, main, parse
from deeplabv3.config import ModelConfig, Phase
from deeplabv3.data.labels import CITYSCAPES
from deeplabv3.errors import InputError
from deeplabv3.model.checkpoint import write_checkpoint
from deeplabv3.model.deeplab import DeepLabV3
from deeplabv3.records import to_record, to_words
from tests.conftest import REPOSITORY, write_frame

TINY = [
    *("--backbone", "resnet18", "--width", "16", "--aspp-channels", "8", "--backbone-weights", "none"),
    *("--phases", "[{epochs: 1, learning_rate: 0.05}]", "--crop-size", "[32, 48]", "--batch-size", "3"),
    *("--device", "cpu"),
]


def deeplabv3(*words: object, timeout: float = 300) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deeplabv3", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def test_streets_train_evaluate_predict(tmp_path, capsys):
    """The way of a new user from nothing to pictures."""
    data, run = tmp_path / "streets", tmp_path / "run"
    model = run / "checkpoints" / "best.safetensors"
    for words in (
        ("streets", data, "--num-train", 3, "--num-val", 2, "--num-test", 1, "--height", 48, "--width", 96),
        ("train", data, run, *TINY),
        ("evaluate", data, "--model", model, "--output-stride", 8, "--out", tmp_path / "scores.json"),
        ("report", data, "--model", model, "--report-dir", tmp_path / "report", "--num-worst", 1),
        ("predict", data / "leftImg8bit" / "val", "--model", model, "--out", tmp_path / "pictures"),
        ("submit", data, "--model", model, "--out", tmp_path / "submission.zip"),
    ):
        code, told = main([str(word) for word in words]), capsys.readouterr()
        assert code == 0, told.err
        assert told.out
    assert len(json.loads((tmp_path / "scores.json").read_text())["perImageScores"]) == 2
    assert len(list((tmp_path / "pictures" / "overlay").iterdir())) == 2
    assert len(zipfile.ZipFile(tmp_path / "submission.zip").namelist()) == 1
    assert "best validation mIoU" in (tmp_path / "report" / "index.html").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)])
def test_stopped_process_says_how_to_go_on(streets, tmp_path, number, capsys):
    run = tmp_path / "run"
    words = ["train", str(streets), str(run), *TINY, "--phases", "[{epochs: 500, learning_rate: 0.05}]"]
    process = subprocess.Popen(
        [sys.executable, "-m", "deeplabv3", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not (run / "log.jsonl").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "saved in" in errors
    assert errors.strip().endswith("go on with the same command and --resume")
    epochs = len((run / "log.jsonl").read_text().splitlines())
    more = ["--phases", f"[{{epochs: {epochs + 1}, learning_rate: 0.05}}]", "--resume"]
    assert main([*words, *more]) == 0
    assert f"epoch {epochs + 1}/{epochs + 1}" in capsys.readouterr().out


@pytest.fixture(scope="module")
def bad(tmp_path_factory) -> Path:
    """One data set for each mistake in data, and checkpoints that are whole, cut off, and of another model."""
    root = tmp_path_factory.mktemp("bad")
    image, label = np.zeros((20, 30, 3), np.uint8), np.full((20, 30), 7, np.uint8)
    (root / "empty/leftImg8bit/train/a").mkdir(parents=True)
    for split in ("train", "val"):
        write_frame(root / "unlabelled", "a_000000_000000", image, None, split)
        write_frame(root / "sizes", "a_000000_000000", image, label[:9, :9], split)
        write_frame(root / "value", "a_000000_000000", image, np.full((20, 30), 34, np.uint8), split)
        path = write_frame(root / "broken", "a_000000_000000", image, label, split)
        path.write_bytes(path.read_bytes()[:50])
    config = ModelConfig(backbone="resnet18", width=16, aspp_channels=8)
    tensors = {f"model/{name}": value for name, value in DeepLabV3(config).state_dict().items()}
    record = {"model": to_record(config), "labels": CITYSCAPES.to_dict()}
    write_checkpoint(root / "net", tensors, record)
    write_checkpoint(root / "other", tensors, {**record, "model": {**record["model"], "backbone": "resnet34"}})
    (root / "truncated").write_bytes((root / "net").read_bytes()[:-1])
    return root


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fly"], "there is no verb 'fly'; choose one of demo, streets, check, pack, unpack, train"),
        (["train", "{tmp}/none", "{tmp}/run"], "there is no folder {tmp}/none; give the one that holds leftImg8bit/"),
        (["train", "{streets}", "{tmp}/run", "--backbone", "vgg16"], "backbone is 'vgg16'; choose one of resnet18"),
        (["train", "{streets}", "{tmp}/run", "--output-stride", "7"], "output_stride is 7; choose 8, 16 or 32"),
        (
            ["train", "{streets}", "{tmp}/run", "--batch-size", "many"],
            "--batch-size: expected int or auto, got many; see --help",
        ),
        (
            ["train", "{streets}", "{tmp}/run", "--phases", "[{steps: 3}]"],
            "--phases: learning_rate is missing; as in '[",
        ),
        (
            ["train", "{streets}", "{tmp}/run", "--phases", "[{steps: few, learning_rate: 1}]"],
            "--phases: steps: expected int, null, got few; as in '[{steps: 400, learning_rate: 0.01}]'",
        ),
        (["train", "{streets}", "{tmp}/run", "--batch-size", "99"], "batch_size is 99 and the training split has 6"),
        (
            ["train", "{streets}", "{tmp}/run", "--phases", "20"],
            "--phases: expected list in brackets, got 20; as in '[{steps: 400",
        ),
        (["train", "{streets}", "{tmp}/run", "--crop-size", "769x769"], "expected list in brackets, got 769x769; see"),
        (["train", "{streets}", "{tmp}/run", "--block-rates", "2"], "expected list of lists in brackets, null, got 2"),
        (["serve", "--model", "m"], "there is no option --model; it stands without a flag, in the order MODEL"),
        (["check", "d", "--splits", "val"], "--splits: expected list in brackets, got val; write '[val]'"),
        (["train", "{streets}", "{tmp}/run", "--kind", "9"], "there is no option --kind; see --help"),
        (["train", "{streets}", "{tmp}/run", "--batchsize", "9"], "no option --batchsize; is --batch-size meant? see"),
        (["train", "{streets}", "{tmp}/run", "--epochs=3"], "no option --epochs; it is part of --phases, as in '[{"),
        (
            ["train", "{streets}", "{streets}/gtFine/run", *TINY],
            "run lies among the frames in {streets}/gtFine; choose",
        ),
        (
            ["train", "{streets}", "{tmp}/run", *TINY, "--phases", "[{epochs: 1, learning_rate: 1, warmup_steps: 9}]"],
            "warmup_steps is 9 in a phase of ",
        ),
        (["predict", "a.png"], "the following arguments are required: --model; see --help"),
        (
            ["predict", "a.png", "--model", "m", "--tile-size", "9"],
            "--tile-size: expected list of 2 in brackets, null, got 9; write '[9, 9]'",
        ),
        (["check", "{streets}", "--out", "{tmp}/a", "--picture", "{tmp}/a"], "picture is '{tmp}/a'; out is that file"),
        (["train", "{streets}", "{tmp}/run", "again"], "again: nothing is expected there; see --help"),
        (
            ["train", "{streets}", "{tmp}/run", "--crop-size", "9"],
            "--crop-size: expected list in brackets, got 9; write '[9, 9]'",
        ),
        (["train", "{streets}", "{tmp}/run", "--crop-size", "[9]"], "expected list of 2 in brackets, got [9]; see"),
        (["train", "{streets}"], "the following arguments are required: run_dir"),
        (["train", "{streets}", "{tmp}/run", "--device", "tpu"], "device is 'tpu'; this machine has"),
        (["train", "{streets}", "{tmp}/file/run", *TINY], "the folder {tmp}/file/run cannot be made: {tmp}/file is a"),
        (["train", "{bad}/empty", "{tmp}/run"], "0 images in {bad}/empty/leftImg8bit/train; expected are images like"),
        (
            ["evaluate", "{bad}/unlabelled", "--model", "{bad}/net"],
            "a_000000_000000_leftImg8bit.png has no label; put",
        ),
        (
            ["evaluate", "{bad}/sizes", "--model", "{bad}/net"],
            "is 9x9 and its image 20x30 (height x width); both must have one size",
        ),
        (["check", "{tmp}/none"], "there is no folder {tmp}/none; give the one that holds leftImg8bit/ and gtFine/"),
        (["check", "{bad}"], "{bad} holds neither leftImg8bit/ nor gtFine/; give the folder that holds both"),
        (
            ["check", "{streets}", "--splits", "[val, val]"],
            "splits is ['val', 'val']; give names of folders, each once",
        ),
        (["check", "{streets}", "--splits", "[../val]"], "splits is ['../val']; give names of folders"),
        (["check", "{streets}", "--out", "{tmp}/file"], "{tmp}/file is there already; add --overwrite"),
        (
            ["evaluate", "{bad}/value", "--split", "train", "--model", "{bad}/net"],
            "holds the value 34, which is not",
        ),
        (
            ["evaluate", "{bad}/broken", "--split", "train", "--model", "{bad}/net"],
            "cannot be read: it ends too early, after 50 bytes",
        ),
        (["evaluate", "{streets}", "--model", "{bad}/truncated"], "truncated is not a whole safetensors file"),
        (["predict", "{streets}/leftImg8bit", "--model", "{bad}/other"], "other belongs to another model: "),
        (
            ["train", "{streets}", "{tmp}/run", "--multi-grid", "[1,2"],
            "--multi-grid: expected list in brackets, null",
        ),
        (
            ["train", "{streets}", "{tmp}/run", "--weights", "{bad}/net", "--output-stride", "16"],  # the default
            "output_stride is given, by an option or a recipe, but the network is that of --weights {bad}/net; leave",
        ),
        (["train", "{streets}", "{tmp}/" + 300 * "x", *TINY], "File name too long"),
        (["train", "{streets}", "{tmp}/run", "--labels", "{tmp}/no.yaml"], "label set {tmp}/no.yaml cannot be read"),
        (["train", "{streets}", "{tmp}/run", "--ignored-classes", "[moon]"], "trains no class 'moon' to ignore"),
        (["train", "{streets}", "{tmp}/run", "--config", "{tmp}/no.yaml"], "no.yaml"),
        (["evaluate", "{streets}", "--model", "{tmp}/no.safetensors"], "there is no checkpoint {tmp}/no.safetensors"),
        (["evaluate", "{streets}", "--model", "{tmp}/file"], "{tmp}/file is text"),
        (["predict", "{tmp}/none.png", "--model", "{tmp}/file"], "there is no file or folder '{tmp}/none.png'"),
        (["predict", "--model", "{tmp}/file", "--", "--my-file.png"], "there is no file or folder '--my-file.png'"),
        (["export", "m", "o.onnx", "--num-calibration", "5"], "num_calibration is 5; it is for --int8; add that, or"),
        (["report", "{streets}"], "nothing to score is given; give --model PATH or --predictions PATH"),
        (["report", "{streets}", "--model", "{bad}/net", "--num-worst", "-1"], "num_worst is -1; give at least 0"),
        (
            ["report", "{streets}", "--model", "{bad}/net", "--report-dir", "{tmp}/file/r"],
            "the folder {tmp}/file/r cannot be made: {tmp}/file is a file",
        ),
        (["predict", "--model", "{tmp}/file"], "the following arguments are required: inputs"),
        (["streets", "{streets}"], "already holds a data set"),
        (
            ["streets", "{tmp}/s", "--height", "8000", "--width", "8000"],
            "8000x8000 (height x width) has more than the 33,5",
        ),
        (["demo", "--out", "{tmp}"], "{tmp} is there already; remove it, or choose another folder"),
    ],
)
def test_mistake_is_one_line_and_exit_code_2(streets, bad, tmp_path, capsys, words, message):
    (tmp_path / "file").write_text("not a checkpoint")
    before = sorted(tmp_path.rglob("*"))
    places = {"{tmp}": str(tmp_path), "{streets}": str(streets), "{bad}": str(bad)}
    for name, path in places.items():
        words, message = [word.replace(name, path) for word in words], message.replace(name, path)
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("deeplabv3")
    assert ": error: " in err
    assert err.count("\n") == 1
    assert message in err
    assert sorted(tmp_path.rglob("*")) == before


def test_mistake_in_a_real_process(tmp_path):
    result = deeplabv3("train", tmp_path / "none", tmp_path / "run")
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") == 1


def test_check_of_a_sound_data_set(streets, tmp_path):
    """In one line and a table, as JSON, as a picture."""
    out, picture = tmp_path / "found.json", tmp_path / "balance.png"
    result = deeplabv3("check", streets, "--out", out, "--picture", picture)
    assert (result.returncode, result.stderr) == (0, "")
    first, _, table = result.stdout.partition("\n\n")
    assert first == f"{streets} has no defect: 6 train, 3 val frames"
    assert table.count("\n") == 19 + 5 - 1
    values = json.loads(out.read_text())
    assert (values["num_defects"], values["defects"]) == (0, [])
    counts = values["splits"]["train"]
    pixels = sum(found["pixels"] for found in counts["classes"].values())
    assert pixels + counts["ignored_pixels"] == 6 * 64 * 96
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_check_of_a_defective_data_set(bad, tmp_path):
    result = deeplabv3("check", bad / "sizes", "--out", tmp_path / "found.json")
    assert (result.returncode, result.stderr) == (1, "")
    assert result.stdout.startswith(f"4 defects in 3 files of {bad / 'sizes'} (1 train, 1 val frames)\n")
    name = "gtFine/val/a/a_000000_000000_gtFine_labelIds.png"
    assert f"\n  {name}: it is 9x9 and its image 20x30 (height x width)" in result.stdout
    defects = json.loads((tmp_path / "found.json").read_text())["defects"]
    assert sorted(defect["reason"] for defect in defects) == [
        "in-two-splits",
        "same-image",
        "size-differs",
        "size-differs",
    ]
    assert next(defect for defect in defects if defect["path"] == name)["frame"] == "a_000000_000000"


def test_train_stops_at_defects_and_lists_them(bad, tmp_path, capsys):
    assert main(["train", str(bad / "unlabelled"), str(tmp_path / "run"), *TINY]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "\nmissing-split: there is no folder of the split (2)\n  gtFine/train: there is no such folder;" in err
    assert err.endswith("mend them, or add --skip-bad to leave these files out\n")
    assert not (tmp_path / "run").exists()


def test_reader_that_has_seen_enough_is_no_error():
    command = f"{sys.executable} -m deeplabv3 models | head -n 1"
    ended = subprocess.run(command, shell=True, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert ended.stdout.startswith("name ")
    assert ended.stderr == ""


def test_flags_are_a_reviewed_list(golden):
    lines = []
    for verb in VERBS:
        flags = sorted(
            flag
            for action in make_parser(verb, VERBS[verb].config, VERBS[verb].positional)._actions
            for flag in action.option_strings
        )
        lines.append(" ".join([verb, *VERBS[verb].positional, *(flag.replace("_", "-") for flag in flags)]))
    golden("flags.txt", "\n".join(lines) + "\n")


def test_flags_with_hyphens_and_underscores_are_one():
    for flag in ("--batch-size", "--batch_size"):
        assert parse("train", ["d", "r", flag, "3"]).batch_size == 3
    assert parse("train", ["d", "r", "--batch-size=3"]).batch_size == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], False),
        (["--resume"], True),
        (["--resume", "false"], False),
        (["--resume", "Yes"], True),
        (["--resume=no"], False),
    ],
)
def test_switch_needs_no_value(words, expected):
    config = parse("train", [*words, "d", "r"])
    assert (config.resume, str(config.data_dir), str(config.run_dir)) == (expected, "d", "r")
    assert parse("train", ["d", "r", *words]) == config


def test_flags_override_the_config_file(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text("batch_size: 5\nseed: 7\nphases: [{epochs: 3, learning_rate: 1e-3}]\noutput_stride: 8\n")
    for words in (["--config", str(path), "--seed", "9"], ["--seed", "9", f"--config={path}"]):
        config = parse("train", ["d", "r", *words])
        assert (config.batch_size, config.seed, config.model.output_stride) == (5, 9, 8)
        assert config.phases == (Phase(epochs=3, learning_rate=1e-3),)


@pytest.mark.parametrize(
    ("verb", "words"),
    [
        ("evaluate", ["d", "--model", "m"]),
        ("report", ["a b", "--model", "it's", "--scales", "[0.5, 1.0]", "--flip", "--report-dir", "r"]),
        ("report", ["d", "--predictions", "p", "--split", "01", "--labels", "l.yaml", "--overwrite"]),
        (
            "train",
            ["d", "r", "--phases", "[{epochs: 3, learning_rate: 0.1}]", "--flip", "no", "--multi-grid", "[1, 2, 4]"],
        ),
        ("predict", ["a.png", "b c.png", "--model", "m", "--legend", "false"]),
    ],
)
def test_configuration_as_words_is_that_configuration(verb, words):
    config = parse(verb, words)
    positional = VERBS[verb].positional
    assert parse(verb, to_words(config, positional)) == config
    assert (
        to_words(parse(verb, ["d", "--model", "m"]), positional) == ["d", "--model", "m"] if verb == "evaluate" else 1
    )


def test_printed_config_is_a_config_file(tmp_path, capsys):
    words = ["d", "r", "--batch-size", "3", "--atrous-rates", "[2, 4]"]
    with pytest.raises(SystemExit):
        parse("train", [*words, "--print_config"])
    (tmp_path / "printed.yaml").write_text(capsys.readouterr().out)
    assert parse("train", ["d", "r", "--config", str(tmp_path / "printed.yaml")]) == parse("train", words)


def test_recipe_is_found_beside_a_folder_of_its_name(tmp_path, monkeypatch):
    (tmp_path / "camvid").mkdir()
    monkeypatch.chdir(tmp_path)
    assert parse("train", ["camvid", "r", "--config", "camvid"]).model.backbone == "resnet18"


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "a.yaml is not a YAML file"), ("", "a.yaml holds no options"), (None, "or a recipe: ")],
)
def test_unusable_config_file_is_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        parse("train", ["d", "r", "--config", str(tmp_path / "a.yaml")])


def test_unknown_key_in_a_config_file(tmp_path):
    (tmp_path / "a.yaml").write_text("bach_size: 3\n")
    with pytest.raises(InputError, match="^there is no option bach_size; is batch_size meant"):
        parse("train", ["d", "r", "--config", str(tmp_path / "a.yaml")])


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"deeplabv3 {__version__}\n"


def test_no_verb_shows_the_help(capsys):
    assert main([]) == 2
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS)


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["models"], []])
def test_closed_pipe_is_no_error(words):
    """Short output reaches the pipe at the end alone."""
    source, target = os.pipe()
    os.close(source)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, "-m", "deeplabv3", *words]
    done = subprocess.run(command, stdout=target, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(target)
    assert (done.returncode, done.stderr) == (141, b"")
