"""What is typed, and what is said of it where it cannot be meant."""

import pytest

from deeplabv3.cli import main, parse
from deeplabv3.errors import InputError


def test_options_are_typed_in_full(tmp_path):
    """Else a file of options would override a flag that is cut short, and `--out` would be the output stride."""
    for words in (["--se", "3"], ["--out", "8"], ["--conf", "quick"]):
        with pytest.raises(InputError, match=f"there is no option {words[0]}; "):
            parse("train", ["data", "run", *words])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["evaluate", "d", "c.safetensors"], "c.safetensors: nothing is expected there; a model is given by --model"),
        (["evaluate", "d", "more"], "more: nothing is expected there; see --help"),
        (["evaluate", "d", "--checkpoint", "c"], "there is no option --checkpoint; a model is given by --model"),
        (["predict", "i", "--weights", "c"], "there is no option --weights; a model is given by --model"),
        (["serve", "--weights", "c"], "there is no option --weights; it stands without a flag, in the order MODEL"),
        (["export", "c", "--out", "x"], "there is no option --out; it stands without a flag, in the order MODEL OUT"),
        (["evaluate", "d", "--config", "quick"], "there is no option backbone here; the file is for deeplabv3 train"),
        (["train", "d", "r", "--phases", "[1]"], "--phases: expected tables, got 1; as in '[{steps: 400, learning"),
        (["train", "d", "r", "--crop-size", "[64,", "64]"], "put a list in quotes, as in --crop-size '[64, ...]'"),
    ],
)
def test_mistake_says_what_to_write(words, message, capsys):
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
