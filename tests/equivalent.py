"""Faults that change nothing which a test could see, each with the reason: `tests.mutants` leaves them out."""

_DATA = "deeplabv3/data"
_PICKLES = "deeplabv3/model/unpickling"
_PIECE = ("2 ** 20 -> 2 * 20", "2 -> 3", "2 -> 1", "20 -> 21", "20 -> 19")
_LAST_ROW = "blank.paste(_MARK, (0, image.height - 1, image.width, image.height))"
_COVERED = "sum(((right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in tiles if right > left))"
_BITS_OF_GREY = "image.tag_v2.get(_BITS, (16,))[0], image.tag_v2.get(_PHOTOMETRIC, 1) == _WHITE_IS_ZERO"
_LOW_BITS = "if header.color == GREY and 1 < header.bits < 8:"
_TRAINED = "sum((counts[value] for value in known if table[value] < label_set.num_classes))"

EQUIVALENT = {
    **{(f"{_PICKLES}/instructions.py", f"module: {change} in PIECE_BYTES = 1 << 20"): "how much is read at a time"
       for change in ("20 -> 21", "20 -> 19", "1 -> 2")},
    (f"{_PICKLES}/contents.py", "without_prefix: tensors and all((name.startswith(prefix) for name in tensors)) -> "
     "all((name.startswith(prefix) for name in tensors)) in if tensors and all((name.startswith(prefix) for name in "
     "tensors)):"): "of none, none are taken away",
    **{
        (f"{_PICKLES}/containers.py", f"module: 512 -> {value} in HEAD_BYTES = 512"): "a kind is told by fewer bytes"
        for value in (511, 513)
    },
    **{(f"{_DATA}/{name}.py", f"module: {change} in _PIECE_BYTES = 2 ** 20"): "how much is read at a time is no result"
       for name in ("pngs", "headers") for change in _PIECE},
    **{(f"{_DATA}/decoding.py", f"module: 254 -> {value} in _MARK = 254"): "any value serves that few pictures end with"
       for value in (253, 255)},
    **{(f"{_DATA}/verifying.py", f"module: 500000000 -> {value} in _FEW_BYTES = 500000000"): "processes only save time"
       for value in (499999999, 500000001)},
    (f"{_DATA}/verifying.py", "packed_frames: num_bytes > _FEW_BYTES -> num_bytes >= _FEW_BYTES in workers = "
     "given_or_cores(num_workers, pays=num_bytes > _FEW_BYTES)"): "processes only save time",
    (f"{_DATA}/headers.py", "_require_few_numbers: 16 -> 17 in start = file.read(16)"): "a byte more is not looked at",
    ("deeplabv3/training/step.py", "module: 3 -> 4 in _DROPOUT = 3"): "any stream is as good that no other use takes",
    (f"{_DATA}/checking.py", "_of_pictures: not image or not digest -> not digest in if not image or not digest:"):
        "no image has no digest",
    (f"{_DATA}/verifying.py", "packed_frames: True -> False in for done, (place, paths) in enumerate(zip(places, read, "
     "strict=True), 1):"): "what reads in order gives one for each",
    **{(f"{_DATA}/checking.py", f"_counts: 256 -> 257 in {name} = np.zeros(256, np.int64)"): "nothing is number 256"
       for name in ("pixels", "frames")},
    (f"{_DATA}/headers.py", f"grey_levels: 1 -> 2 in return ({_BITS_OF_GREY})"): "neither is white at zero",
    **{(f"{_DATA}/decoding.py", f"_fit_transparency: {change} in {_LOW_BITS}"): "of 8 bits nothing is to be fitted"
       for change in ("1 < header.bits < 8 -> 1 < header.bits <= 8", "8 -> 9")},
    (f"{_DATA}/decoding.py", f"_mark_last_row: 1 -> 2 in {_LAST_ROW}"): "the row above the last is written over",
    (f"{_DATA}/headers.py", f"require_decodable: right > left -> right >= left in covered = {_COVERED}"):
        "a tile without columns covers nothing",
    (f"{_DATA}/checking.py", "_hardly_trained: table[value] < label_set.num_classes -> table[value] <= "
     f"label_set.num_classes in trained = {_TRAINED}"): "no trainId is the number of classes",
}  # fmt: skip
"""Module and change, as `tests.mutants` prints them, and why it is none."""
