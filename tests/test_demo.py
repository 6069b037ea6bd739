import re

import pytest

from deeplabv3.cli import main


@pytest.mark.slow
def test_demo_reaches_what_it_promises(tmp_path, capsys):
    """The whole demonstration: held-out mIoU over all 19 classes, and every picture that it names."""
    assert main(["demo", "--out", str(tmp_path / "demo"), "--device", "cpu"]) == 0
    text = capsys.readouterr().out
    score = re.search(r"^mIoU +([0-9.]+)( +[0-9.]+)?  over 19 of 19$", text, re.MULTILINE)
    assert score
    assert re.search(r"^pixel accuracy [0-9.]+ %, 40 frames$", text, re.MULTILINE)
    assert float(score[1]) >= 40
    pictures = re.findall(r"^  (/.*\.png)$", text, re.MULTILINE)
    assert len(pictures) == 5
    assert all((tmp_path / picture).is_file() for picture in pictures)
