"""The command line: one verb a room, each imported only when it runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from shlex import quote
from typing import TYPE_CHECKING, Any, NamedTuple

from deeplabv3 import __version__
from deeplabv3.arguments import parse_arguments
from deeplabv3.config import (
    CheckConfig,
    DemoConfig,
    EvaluateConfig,
    ExportConfig,
    ImportConfig,
    ModelsConfig,
    PackConfig,
    PredictConfig,
    ReportConfig,
    ServeConfig,
    StreetsConfig,
    SubmitConfig,
    TrainConfig,
    UnpackConfig,
)
from deeplabv3.distributed import is_first
from deeplabv3.errors import InputError
from deeplabv3.exits import guarded

if TYPE_CHECKING:
    from deeplabv3.evaluation.scores import Scores


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `deeplabv3 VERB ...`.

    Args:
        arguments: What was typed behind the program's name; None reads it from the process.

    Returns:
        The exit code: 0, 2 for a user's mistake, 1 for a run that failed or a check that found something, 130 or 143
        for a run that was stopped, 141 where nobody reads what is printed any more.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help"):
        return guarded("deeplabv3", lambda: print(usage())) or (0 if words else 2)
    if words[0] == "--version":
        return guarded("deeplabv3", lambda: print(f"deeplabv3 {__version__}"))
    verb = VERBS.get(words[0])
    if verb is None:
        print(f"deeplabv3: error: there is no verb {words[0]!r}; choose one of {', '.join(VERBS)}", file=sys.stderr)
        return 2
    return guarded(f"deeplabv3 {words[0]}", lambda: verb.run(parse(words[0], words[1:])))


def run_check(config: CheckConfig) -> int:
    """Check a data set, and print what was found; 1 if that is anything."""
    from deeplabv3.report.defects import check, summary

    findings = check(config)
    print(summary(findings))
    return 1 if findings.findings else 0


def run_pack(config: PackConfig) -> None:
    """Pack each split, and say how to go on."""
    from deeplabv3.data.cityscapes import IMAGES
    from deeplabv3.data.frames import label_set_of
    from deeplabv3.data.packed import packed_splits
    from deeplabv3.data.packing import pack_split
    from deeplabv3.files import require_writable
    from deeplabv3.progress import Progress
    from deeplabv3.training.frames import sound_samples

    if packed_splits(config.data_dir):
        raise InputError(f"{config.data_dir} is packed already; give the data set that it was packed from")
    if config.out.resolve().is_relative_to(config.data_dir.resolve()):
        raise InputError(f"{config.out} lies in the data set {config.data_dir}; choose a folder outside it")
    if (config.out / IMAGES).exists():
        raise InputError(f"{config.out} holds a data set as plain files; choose a folder of its own for the packed one")
    require_writable(config.out)
    there = {path.name for path in config.out.glob("[!.]*")} - set(packed_splits(config.out))
    if there:
        raise InputError(f"{config.out} holds {min(there)}, which is no packed split; choose a folder of its own")
    label_set = label_set_of(config.data_dir, config.labels)
    check = CheckConfig(
        data_dir=config.data_dir, labels=config.labels, splits=config.splits, num_workers=config.num_workers
    )
    splits, _ = sound_samples(check, label_set, skip_bad=config.skip_bad)
    for split, samples in splits.items():
        with Progress(f"packing {split}", len(samples)) as progress:
            is_new = pack_split(
                config.data_dir,
                config.out,
                split,
                samples,
                label_set,
                num_workers=config.num_workers,
                overwrite=config.overwrite,
                progress=progress.advance,
                skipped=progress.skip,
            )
        print(f"{config.out / split}: {len(samples):,} frames" + ("" if is_new else ", packed before and unchanged"))
    if {"train", "val"} <= set(packed_splits(config.out)):
        print(f"train with: deeplabv3 train {quote(str(config.out))} RUN")


def run_unpack(config: UnpackConfig) -> None:
    """Unpack each split, and say where it is."""
    from deeplabv3.data.packed import packed_splits, read_index
    from deeplabv3.data.unpacking import require_own_folder, unpack_split
    from deeplabv3.files import is_folder
    from deeplabv3.progress import Progress

    splits = packed_splits(config.data_dir)
    if not is_folder(config.data_dir):
        raise InputError(f"there is no folder {config.data_dir}; give one that deeplabv3 pack has written")
    if not splits:
        raise InputError(f"{config.data_dir} is no packed data set; give the folder that deeplabv3 pack has written")
    if config.out.resolve().is_relative_to(config.data_dir.resolve()):
        raise InputError(f"{config.out} lies in the packed data set {config.data_dir}; choose a folder outside it")
    indices = [read_index(config.data_dir / split) for split in splits]
    require_own_folder(indices, config.out)
    for split, packed in zip(splits, indices, strict=True):
        with Progress(f"unpacking {split}", len(packed.frames)) as progress:
            unpack_split(packed, config.out, num_workers=config.num_workers, progress=progress.advance)
        print(f"{config.out}: {len(packed.frames):,} frames of {split}")


def run_train(config: TrainConfig) -> None:
    """Train, and say where everything is."""
    from deeplabv3.report.page import PAGE
    from deeplabv3.training.loop import train
    from deeplabv3.training.state import RunPaths

    train(config)
    paths = RunPaths(config)
    files = {
        "best checkpoint": paths.best,
        "last checkpoint": paths.last,
        "losses": paths.plot,
        "report": paths.report_dir / PAGE,
    }
    for what, path in files.items():
        if path.exists() and is_first():
            print(f"{what} {path}")


def run_evaluate(config: EvaluateConfig) -> None:
    """Score, and print the table."""
    from deeplabv3.evaluation.evaluate import evaluate

    evaluate(config, print_scores)


def print_scores(scores: Scores) -> None:
    """The table, once and not by each of several processes."""
    from deeplabv3.report.tables import score_table

    if is_first():
        print(score_table(scores))


def run_report(config: ReportConfig) -> None:
    """Score, print the table, write the page, and say where it is."""
    from deeplabv3.report.page import PAGE
    from deeplabv3.report.writing import write_report

    write_report(config, print_scores)
    if is_first():
        print(f"look at {config.report_dir / PAGE}")


def run_submit(config: SubmitConfig) -> None:
    """Write a submission or check one."""
    from deeplabv3.evaluation.submission import check_submission, submit

    if config.check is not None:
        num_frames = check_submission(config)
        print(f"{config.check} is sound: {num_frames} frames, each once, as the server wants them")
    else:
        num_frames = submit(config)
        print(f"{config.out}: {num_frames} frames of {config.split}, checked and ready to be uploaded")


def run_import(config: ImportConfig) -> None:
    """Import, and say what was made of the file."""
    from deeplabv3.model.load import import_checkpoint

    path, imported, label_set = import_checkpoint(config)
    model = imported.config
    print(f"{imported.kind}: {model.backbone}, {model.num_classes} classes ({label_set.name}), {imported.assumed}")
    if imported.unused:
        print(f"left out on purpose: {', '.join(imported.unused)}")
    print(f"written as {path}")


def run_export(config: ExportConfig) -> None:
    """Export, and say how far the file is from its checkpoint."""
    from deeplabv3.deployment.export import export

    done = export(config)
    parity, loss = done.parity, done.loss
    if parity is not None:
        print(
            f"against the checkpoint: {parity.share_differing:.4%} of {parity.num_pixels:,} pixels differ, "
            f"probabilities by up to {parity.largest_difference:.1e}"
        )
    if loss is not None:
        before, after = loss.miou_before, loss.miou_after
        print(f"mIoU on {config.calibration}: {before:.4f} before int8, {after:.4f} after, {after - before:+.4f}")
    print(
        f"{done.path}: {done.num_bytes:,} bytes; segment with: deeplabv3 predict IMAGE --model {quote(str(done.path))}"
    )


def run_models(config: ModelsConfig) -> None:
    """List the published checkpoints."""
    from deeplabv3.model.zoo import models_table

    print(models_table())


def run_predict(config: PredictConfig) -> None:
    """Segment, and say where the pictures are."""
    from deeplabv3.prediction.predictor import predict

    overlays = predict(config)
    images = [path for path in overlays if path.suffix == ".png"]
    if images and is_first():
        print(f"{len(images)} images: label ids, colour masks and overlays are in {config.out}, as in {images[0]}")
    for video in overlays[len(images) :] if is_first() else ():
        print(f"{video}: the video with its overlays")


def run_serve(config: ServeConfig) -> None:
    """Serve until stopped."""
    try:
        from deeplabv3.serving.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("deeplabv3"):
            raise
        raise InputError(f"{error.name} is not installed; it comes with: pip install 'deeplabv3[serve]'") from error
    serve(config)


def run_streets(config: StreetsConfig) -> None:
    """Draw streets, and say how to go on."""
    from deeplabv3.data.streets import write_streets
    from deeplabv3.progress import Progress

    counts = {"training": config.num_train, "validation": config.num_val, "test": config.num_test}
    with Progress("drawing", sum(counts.values())) as progress:
        write_streets(
            config.out,
            num_train=config.num_train,
            num_val=config.num_val,
            num_test=config.num_test,
            height=config.height,
            width=config.width,
            seed=config.seed,
            progress=lambda *_: progress.advance(),
        )
    told = " and ".join(f"{count} {name}" for name, count in counts.items() if count)
    print(f"{told} scenes are in {config.out}")


def run_demo(config: DemoConfig) -> None:
    """Run the demonstration."""
    from deeplabv3.demo import demo

    demo(config)


class Verb(NamedTuple):
    """What a verb is for, what it takes, which of that is positional, and what it runs, for an exit code or None."""

    purpose: str
    config: type
    positional: tuple[str, ...]
    run: Callable[[Any], int | None]


VERBS = {
    "demo": Verb("streets, training, scores and pictures in a few minutes", DemoConfig, (), run_demo),
    "streets": Verb("write synthetic street scenes in the Cityscapes layout", StreetsConfig, ("out",), run_streets),
    "check": Verb("find every defect of a data set, and count its classes", CheckConfig, ("data_dir",), run_check),
    "pack": Verb("write a data set as flat files that are read much faster", PackConfig, ("data_dir", "out"), run_pack),
    "unpack": Verb("write a packed data set as plain files again", UnpackConfig, ("data_dir", "out"), run_unpack),
    "train": Verb("train on a data set in the Cityscapes layout", TrainConfig, ("data_dir", "run_dir"), run_train),
    "evaluate": Verb("score a checkpoint: IoU of each class and mIoU", EvaluateConfig, ("data_dir",), run_evaluate),
    "report": Verb("evaluate, and write a page to look at", ReportConfig, ("data_dir",), run_report),
    "submit": Verb("the zip file for the benchmark server, or a check of one", SubmitConfig, ("data_dir",), run_submit),
    "models": Verb("list the published checkpoints that can be had by name", ModelsConfig, (), run_models),
    "import": Verb("another project's checkpoint as one of ours", ImportConfig, ("file",), run_import),
    "export": Verb("an .onnx or .pt2 file that runs elsewhere", ExportConfig, ("model", "out"), run_export),
    "predict": Verb(
        "segment images and videos: label ids, colour masks, overlays", PredictConfig, ("inputs",), run_predict
    ),
    "serve": Verb("segment images over HTTP, with a page to look at", ServeConfig, ("model",), run_serve),
}


def usage() -> str:
    """The help of the program as a whole."""
    verbs = "\n".join(f"  {name:<10}{verb.purpose}" for name, verb in VERBS.items())
    return (
        "usage: deeplabv3 VERB ...\n\nDeepLab V3 for street scenes (Chen et al. 2017).\n\n"
        f"verbs:\n{verbs}\n\n"
        "deeplabv3 VERB --help shows the options of a verb; deeplabv3 --version the release.\n"
        "The first thing to run is: deeplabv3 demo"
    )


def parse(verb: str, words: Sequence[str]) -> Any:
    """Turn the words behind a verb into its configuration.

    Raises:
        InputError: A flag is unknown, or a value is missing or not possible.
    """
    return parse_arguments(verb, VERBS[verb].config, VERBS[verb].positional, words)
