"""What a check of a data set found, for people and for programs."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import Any

from deeplabv3.config import CheckConfig
from deeplabv3.data.checking import check_dataset
from deeplabv3.data.findings import REASONS, Finding, Findings
from deeplabv3.data.frames import label_set_of
from deeplabv3.data.labels import LabelSet
from deeplabv3.distributed import is_first
from deeplabv3.files import refuse_to_overwrite, require_writable, write_whole
from deeplabv3.progress import Progress


def check(config: CheckConfig) -> Findings:
    """Find every defect of a data set, and write the files that were asked for.

    Raises:
        DatasetError: There is no such folder, or the label set cannot be used.
        OutputError: A file is there already, or cannot be written.
    """
    label_set = label_set_of(config.data_dir, config.labels)
    wanted = [path for path in (config.out, config.picture) if path is not None]
    for path in wanted:
        require_writable(path.parent)
    if not config.overwrite:
        refuse_to_overwrite(wanted)
    findings = checked(config, label_set)
    if config.out is not None:
        write_whole(config.out, json.dumps(to_json(findings), indent=1) + "\n")
    if config.picture is not None:
        from deeplabv3.report.balance import balance_png  # draws, which needs more libraries

        write_whole(config.picture, balance_png(findings))
    return findings


def checked(config: CheckConfig, label_set: LabelSet, *, remembered: bool = False) -> Findings:
    """`check_dataset` with a bar; its notes go to stderr."""
    with ExitStack() as shown:
        bars: list[Progress] = []

        def tell(done: int, total: int) -> None:
            if not bars:  # only now is the total known
                bars.append(shown.enter_context(Progress("checking", total)))
            bars[0].advance(done - bars[0].done)

        findings = check_dataset(
            config.data_dir,
            config.splits,
            label_set,
            num_workers=config.num_workers,
            progress=tell,
            remembered=remembered,
        )
    if is_first():
        for note in findings.notes.values():
            print(f"note: {note}", file=sys.stderr)
    return findings


def summary(findings: Findings) -> str:
    """All defects, grouped by reason, and the balance of the classes."""
    return f"{defect_list(findings)}\n\n{balance_table(findings)}"


def defect_list(findings: Findings) -> str:
    """The number of defects and every file by its reason; one line where there are none."""
    frames = ", ".join(f"{counts.num_frames:,} {split}" for split, counts in findings.splits.items())
    found = findings.findings
    if not found:
        return f"{findings.data_dir} has no defect: {frames} frames"
    num_files = len({finding.path for finding in found})
    head = f"{_number(len(found), 'defect')} in {_number(num_files, 'file')} of {findings.data_dir} ({frames} frames)"
    lines = [head]
    for reason, meaning in REASONS.items():
        group = [finding for finding in found if finding.reason == reason]
        if group:
            lines += ["", f"{reason}: {meaning} ({len(group)})"]
            lines += [f"  {_line(finding, findings)}" for finding in group]
    return "\n".join(lines)


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _line(finding: Finding, findings: Findings) -> str:
    """A finding in one line, whatever its file is called."""
    text = f"{finding.path.relative_to(findings.data_dir).as_posix()}: {finding.text}"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def balance_table(findings: Findings) -> str:
    """How many percent of a split's labelled pixels each class has, and how many of its frames it is in."""
    label_set = findings.label_set
    width = max(map(len, (*label_set.names, "ignored pixels")))
    head = f"{'class':<{width}}" + "".join(f"{f'{split} %':>12}{'frames':>9}" for split in findings.splits)
    rows = [head, "-" * len(head)]
    for train_id, name in enumerate(label_set.names):
        cells = ""
        for counts in findings.splits.values():
            share = counts.pixels[train_id] / max(1, sum(counts.pixels))
            cells += f"{f'{100 * share:.3f}' if share else '-':>12}{counts.frames[train_id]:>9,}"
        rows.append(f"{name:<{width}}{cells}")
    cells = ""
    for counts in findings.splits.values():
        share = counts.ignored_pixels / max(1, counts.ignored_pixels + sum(counts.pixels))
        cells += f"{f'{100 * share:.3f}':>12}{'':>9}"
    rows += ["-" * len(head), f"{'ignored pixels':<{width}}{cells}".rstrip()]
    return "\n".join(rows)


def to_json(findings: Findings) -> dict[str, Any]:
    """Everything that was found, as plain JSON values."""
    names = findings.label_set.names
    splits = {
        split: {
            "num_frames": counts.num_frames,
            "ignored_pixels": counts.ignored_pixels,
            "classes": {
                name: {"pixels": counts.pixels[train_id], "frames": counts.frames[train_id]}
                for train_id, name in enumerate(names)
            },
        }
        for split, counts in findings.splits.items()
    }
    defects = [
        {
            "path": finding.path.relative_to(findings.data_dir).as_posix(),
            "reason": finding.reason,
            "message": finding.text,
            "split": finding.split,
            "frame": finding.frame,
        }
        for finding in findings.findings
    ]
    return {
        "data_dir": str(findings.data_dir),
        "label_set": findings.label_set.name,
        "num_defects": len(defects),
        "defects": defects,
        "notes": [{"split": split, "message": note} for split, note in findings.notes.items()],
        "splits": splits,
    }
