import io
import re

import numpy as np
from PIL import Image

from deeplabv3.data.labels import LabelClass, LabelSet
from deeplabv3.evaluation.scores import scores_from
from deeplabv3.report.charts import confusion_png
from deeplabv3.report.markup import is_light, share_text
from deeplabv3.report.matrix import matrix_table
from deeplabv3.report.mistakes import Mistake, class_counts, largest_mistakes, occurring
from tests.report.conftest import YARD, frame_of, scores_of


def test_ids_of_one_class_are_counted_together():
    _, counts = frame_of([[3, 9, 255, 0]], [[9, 3, 0, 255]])
    matrix = class_counts(counts, YARD)
    np.testing.assert_array_equal(matrix, [[0, 0, 0, 1], [0, 2, 0, 0], [0, 0, 0, 0]])
    assert occurring(matrix) == [0, 1]


def test_mistakes_are_the_most_frequent_ones():
    matrix = np.array([[9, 2, 0], [5, 9, 1]])
    assert largest_mistakes(matrix, 2) == [Mistake(1, 0, 5), Mistake(0, 1, 2)]
    assert largest_mistakes(np.diag([3, 4]), 5) == []


def test_counts_are_on_hover():
    label = [[3] * 1200, [3] * 1200]
    table = matrix_table(scores_of(frame_of(label, [[3] * 1200, [70] * 1200])))
    assert 'data-tip="grass \u2192 pond: 1,200 pixels, 50.0 % of grass">50</td>' in table
    assert '<td class="total">2,400</td>' in table


def test_class_in_no_label_has_no_shares():
    table = matrix_table(scores_of(frame_of([[3, 3]], [[3, 70]])))
    assert "predicted, but in no label" in table
    assert table.count("<tbody><tr>") == 1


def test_predictions_of_ignored_ids_have_a_column():
    assert "an ignored class" in matrix_table(scores_of(frame_of([[3, 3]], [[3, 0]])))
    assert "an ignored class" not in matrix_table(scores_of(frame_of([[3, 0]], [[3, 0]])))


def many(number):
    labels = LabelSet("many", tuple(LabelClass(f"class {n}", n, n, (n, n, n)) for n in range(number)))
    return scores_from(np.diag([1] * number + [0]), labels)


def test_many_classes_are_shown_without_numbers():
    table = matrix_table(many(200))
    assert 'class="matrix dense"' in table
    assert len(re.findall("data-tip", table)) == 200
    assert len(table) < 600_000
    with Image.open(io.BytesIO(confusion_png(many(30)))) as picture:
        assert max(picture.size) < 2500


def test_small_shares_are_not_called_zero():
    assert [share_text(share) for share in (0.0, 0.0001, 0.0314)] == ["0.0 %", "&lt; 0.1 %", "3.1 %"]


def test_ink_is_the_one_with_more_contrast():
    assert is_light("#ffffff")
    assert is_light("#6b8e23")
    assert not is_light("#804080")
