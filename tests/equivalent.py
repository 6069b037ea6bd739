"""Faults that change nothing which a test could see, each with the reason: `tests.mutants` leaves them out."""

_DATA = "deeplabv3/data"
_PIECE = ("2 ** 20 -> 2 * 20", "2 -> 3", "2 -> 1", "20 -> 21", "20 -> 19")
_LAST_ROW = "blank.paste(_MARK, (0, image.height - 1, image.width, image.height))"
_COVERED = "sum(((right - left) * (bottom - top) for _, (left, top, right, bottom), *_ in tiles if right > left))"
_TRAINED = "sum((counts[value] for value in known if table[value] < label_set.num_classes))"

EQUIVALENT = {
    **{(f"{_DATA}/{name}.py", f"module: {change} in _PIECE_BYTES = 2 ** 20"): "how much is read at a time is no result"
       for name in ("pngs", "headers") for change in _PIECE},
    **{(f"{_DATA}/decoding.py", f"module: 254 -> {value} in _MARK = 254"): "any value serves that few pictures end with"
       for value in (253, 255)},
    **{(f"{_DATA}/verifying.py", f"module: 500000000 -> {value} in _FEW_BYTES = 500000000"): "processes only save time"
       for value in (499999999, 500000001)},
    (f"{_DATA}/decoding.py", f"_mark_last_row: 1 -> 2 in {_LAST_ROW}"): "the row above the last is written over",
    (f"{_DATA}/headers.py", f"require_decodable: right > left -> right >= left in covered = {_COVERED}"):
        "a tile without columns covers nothing",
    (f"{_DATA}/checking.py", "_hardly_trained: table[value] < label_set.num_classes -> table[value] <= "
     f"label_set.num_classes in trained = {_TRAINED}"): "no trainId is the number of classes",
}  # fmt: skip
"""Module and change, as `tests.mutants` prints them, and why it is none."""
