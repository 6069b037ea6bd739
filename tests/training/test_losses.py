"""Each loss against its formula, written out in float64 and differentiated by autograd."""

import itertools
import math

import pytest
import torch

from deeplabv3.config import LossConfig
from deeplabv3.data.labels import IGNORE_INDEX
from deeplabv3.training.losses import Pixels, _loss, cross_entropy, loss_of

K = 4
WEIGHTS = torch.tensor([0.5, 2.0, 0.0, 3.0])
MIXED = LossConfig(ohem_share=0.5, dice_weight=0.7, lovasz_weight=1.3, auxiliary_weight=0.3)


def batch(ignored=0.3, shape=(2, K, 3, 5), dtype=torch.float64, seed=0):
    """Logits that ask for a gradient, and labels as they come from the loader."""
    torch.manual_seed(seed)
    logits = (3 * torch.randn(shape)).to(dtype).requires_grad_()
    label = torch.randint(0, shape[1], (shape[0], *shape[2:])).to(torch.uint8)
    label[torch.rand(label.shape) < ignored] = IGNORE_INDEX
    return logits, label


def dice(logits, label):
    return _loss(logits, Pixels.of(logits, label), None, 1.0, 0.0)


def lovasz_softmax(logits, label):
    return _loss(logits, Pixels.of(logits, label), None, 0.0, 1.0)


def labelled_rows(logits, label):
    """The softmax `(P, K)` and the class `(P,)` of each pixel that is not ignored, in order."""
    places = [place for place in itertools.product(*map(range, label.shape)) if label[place] != IGNORE_INDEX]
    rows = [logits[n, :, y, x].exp() / logits[n, :, y, x].exp().sum() for n, y, x in places]
    classes = [int(label[place]) for place in places]
    return (torch.stack(rows) if rows else logits.new_zeros(0, logits.shape[1])), classes


def written_cross_entropy(logits, label, class_weights=None, keep=None):
    rows, classes = labelled_rows(logits, label)
    losses = [-row[own].log() for row, own in zip(rows, classes, strict=True)]
    kept = range(len(losses)) if keep is None else keep([float(loss.detach()) for loss in losses])
    weights = {pixel: 1.0 if class_weights is None else float(class_weights[classes[pixel]]) for pixel in kept}
    total = sum(weights.values())
    return sum((weights[pixel] * losses[pixel] for pixel in kept), logits.sum() * 0) / (total or 1)


def hardest(number):
    """As `keep` above: the places of that many of the highest losses."""
    return lambda losses: sorted(range(len(losses)), key=lambda pixel: -losses[pixel])[:number]


def written_dice(logits, label):
    rows, classes = labelled_rows(logits, label)
    losses = []
    for own in sorted(set(classes)):
        truth = torch.tensor([float(c == own) for c in classes], dtype=rows.dtype)
        losses.append(1 - 2 * (rows[:, own] * truth).sum() / (rows[:, own].sum() + truth.sum()))
    return sum(losses, logits.sum() * 0) / max(1, len(losses))


def jaccard_loss(wrong, truth):
    """1 - intersection / union of a class when the pixels in `wrong` are predicted wrongly (Berman et al., eq. 6)."""
    return len(wrong) / len(truth | wrong)


def written_lovasz(logits, label):
    """By the definition (Berman et al. 2018, eq. 8): errors in descending order times what each adds."""
    rows, classes = labelled_rows(logits, label)
    losses = []
    for own in sorted(set(classes)):
        truth = {pixel for pixel, c in enumerate(classes) if c == own}
        errors = [1 - rows[p, own] if p in truth else rows[p, own] for p in range(len(classes))]
        order = sorted(range(len(errors)), key=lambda pixel: -float(errors[pixel].detach()))
        losses.append(
            sum(
                errors[pixel] * (jaccard_loss(set(order[: i + 1]), truth) - jaccard_loss(set(order[:i]), truth))
                for i, pixel in enumerate(order)
            )
        )
    return sum(losses, logits.sum() * 0) / max(1, len(losses))


def with_config(config, class_weights=None):
    return lambda logits, label: loss_of(logits, None, label, config, class_weights)


LOSSES = {
    "cross_entropy": (cross_entropy, written_cross_entropy),
    "class_weights": (
        lambda logits, label: cross_entropy(logits, label, WEIGHTS),
        lambda logits, label: written_cross_entropy(logits, label, WEIGHTS),
    ),
    "share": (
        with_config(LossConfig(ohem_share=0.2)),
        lambda logits, label: written_cross_entropy(
            logits, label, keep=lambda losses: hardest(max(1, round(0.2 * len(losses))))(losses)
        ),
    ),
    "share_of_weighted": (
        with_config(LossConfig(ohem_share=0.5), WEIGHTS),
        lambda logits, label: written_cross_entropy(
            logits, label, WEIGHTS, lambda losses: hardest(int((len(losses) + 1) / 2))(losses)
        ),
    ),
    "threshold": (
        with_config(LossConfig(ohem_threshold=0.1, ohem_min_kept=1)),  # times 2 images
        lambda logits, label: written_cross_entropy(
            logits,
            label,
            keep=lambda losses: {p for p in range(len(losses)) if losses[p] > -math.log(0.1)} | {*hardest(2)(losses)},
        ),
    ),
    "threshold_of_few": (
        with_config(LossConfig(ohem_threshold=1e-9, ohem_min_kept=3)),
        lambda logits, label: written_cross_entropy(logits, label, keep=hardest(6)),
    ),
    "dice": (dice, written_dice),
    "lovasz": (lovasz_softmax, written_lovasz),
    "mixed": (
        with_config(MIXED, WEIGHTS),
        lambda logits, label: (
            written_cross_entropy(logits, label, WEIGHTS, lambda losses: hardest(int((len(losses) + 1) / 2))(losses))
            + 0.7 * written_dice(logits, label)
            + 1.3 * written_lovasz(logits, label)
        ),
    ),
}

every_loss = pytest.mark.parametrize("name", LOSSES)


@every_loss
@pytest.mark.parametrize("ignored", [0.0, 0.4, 1.0])
def test_loss_and_gradient_are_those_of_the_formula(name, ignored):
    logits, label = batch(ignored)
    ours, theirs = (loss(logits, label) for loss in LOSSES[name])
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    ours, theirs = (torch.autograd.grad(2.5 * loss, logits) for loss in (ours, theirs))  # as a scaler would
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


@every_loss
def test_gradient_is_the_difference_quotient(name):
    logits, label = batch(shape=(1, 3, 2, 3), seed=3)
    loss = (lambda x: dice(x, label)) if name == "dice" else lambda x: LOSSES[name][0](x, label)
    (gradient,) = torch.autograd.grad(loss(logits), logits)
    for place in itertools.product(*map(range, logits.shape)):
        step = torch.zeros_like(logits)
        step[place] = 1e-6
        with torch.no_grad():
            quotient = (loss(logits + step) - loss(logits - step)) / 2e-6
        assert float(gradient[place]) == pytest.approx(float(quotient), abs=1e-7)


@every_loss
def test_ignored_pixels_do_not_matter(name):
    logits, label = batch(0.4)
    other = logits.detach().clone()
    other.movedim(1, -1)[label == IGNORE_INDEX] = torch.tensor([9.0, -50.0, 3.0, 0.0], dtype=other.dtype)
    other.requires_grad_()
    ours, theirs = (LOSSES[name][0](x, label) for x in (logits, other))
    assert float(ours.detach()) == float(theirs.detach())
    ours, theirs = torch.autograd.grad(ours, logits)[0], torch.autograd.grad(theirs, other)[0]
    assert torch.equal(ours, theirs)
    assert not ours.movedim(1, -1)[label == IGNORE_INDEX].any()


@every_loss
def test_all_ignored_is_0_with_a_gradient_of_0(name):
    logits, label = batch(1.0, dtype=torch.float32)
    loss = LOSSES[name][0](logits, label)
    loss.backward()
    assert float(loss.detach()) == 0
    assert logits.grad is not None
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@every_loss
@pytest.mark.parametrize("value", [0.0, 1e4])
def test_extreme_logits_are_finite(name, value):
    """Probabilities of exactly 0 and 1."""
    logits = torch.zeros(1, K, 2, 4)
    logits[:, 1] = value
    logits.requires_grad_()
    loss = LOSSES[name][0](logits, torch.tensor([[[0, 1, 1, 3], [1, 1, IGNORE_INDEX, 0]]]))
    loss.backward()
    assert bool(loss.isfinite())
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


@every_loss
def test_single_class_costs_nothing_and_learns_nothing(name):
    logits, label = batch(0.2, shape=(1, 1, 3, 4))
    loss = loss_of(logits, None, label, LossConfig() if "weight" in name or name == "mixed" else CONFIGS[name])
    loss.backward()
    assert float(loss.detach()) == pytest.approx(0, abs=1e-15)
    assert not logits.grad.any()


CONFIGS = {
    "cross_entropy": LossConfig(),
    "share": LossConfig(ohem_share=0.2),
    "threshold": LossConfig(ohem_threshold=0.7),
    "threshold_of_few": LossConfig(ohem_threshold=0.7, ohem_min_kept=0),
    "dice": LossConfig(dice_weight=1.0),
    "lovasz": LossConfig(lovasz_weight=1.0),
}


@every_loss
def test_narrow_logits_are_computed_in_float32(name):
    logits, label = batch(dtype=torch.bfloat16)
    loss = LOSSES[name][0](logits, label)
    (gradient,) = torch.autograd.grad(loss, logits)
    wide = logits.detach().float().requires_grad_()
    expected = LOSSES[name][0](wide, label)
    assert (loss.dtype, gradient.dtype) == (torch.float32, torch.bfloat16)
    assert float(loss.detach()) == float(expected.detach())
    assert torch.equal(gradient, torch.autograd.grad(expected, wide)[0].bfloat16())


@every_loss
@pytest.mark.parametrize("dtype", [torch.int16, torch.int64, torch.float32])
def test_type_of_the_label_does_not_matter(name, dtype):
    logits, label = batch()
    ours, theirs = (LOSSES[name][0](logits, one) for one in (label.to(dtype), label))
    assert float(ours.detach()) == float(theirs.detach())


@every_loss
def test_value_is_the_same_without_a_gradient(name):
    logits, label = batch()
    with torch.no_grad():
        assert float(LOSSES[name][0](logits, label)) == float(LOSSES[name][0](logits.requires_grad_(), label))


def test_second_gradient_is_refused():
    """The memory of the first was given away; a wrong one must not come out."""
    logits, label = batch()
    loss = cross_entropy(logits, label)
    loss.backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_logits_are_left_as_they_are():
    logits, label = batch()
    before = logits.detach().clone()
    loss_of(logits, logits, label, MIXED).backward()
    assert torch.equal(logits.detach(), before)


def test_even_logits_cost_the_logarithm_of_the_classes():
    assert float(cross_entropy(torch.zeros(1, 19, 4, 4), torch.zeros(1, 4, 4))) == pytest.approx(math.log(19))


def test_label_beyond_the_classes_is_an_error_and_no_number():
    with pytest.raises(RuntimeError, match="out of bounds"):
        cross_entropy(torch.zeros(1, 3, 1, 2), torch.tensor([[[0, 3]]]))


def test_auxiliary_head_has_plain_cross_entropy_of_its_weight():
    (logits, label), (auxiliary, _) = batch(), batch(seed=1)
    whole = loss_of(logits, auxiliary, label, MIXED, WEIGHTS)
    expected = loss_of(logits, None, label, MIXED, WEIGHTS) + 0.3 * cross_entropy(auxiliary, label, WEIGHTS)
    assert float(whole.detach()) == float(expected.detach())
    ours, theirs = (torch.autograd.grad(loss, auxiliary)[0] for loss in (whole, expected))
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("share", "number"), [(0.2, 20), (0.29, 29), (0.001, 1), (0.999, 100), (1.0, 100)])
def test_share_keeps_exactly_so_many_of_equally_hard_pixels(share, number):
    logits = torch.zeros(1, 2, 10, 12, requires_grad=True)
    label = torch.zeros(1, 10, 12, dtype=torch.uint8)
    label[:, :, 10:] = IGNORE_INDEX  # leaves 100
    loss_of(logits, None, label, LossConfig(ohem_share=share)).backward()
    slopes = logits.grad[0, 0]
    assert int((slopes != 0).sum()) == number
    assert slopes[label[0] != IGNORE_INDEX][:number].allclose(torch.tensor(-0.5 / number))  # the first ones


def test_perfect_prediction_has_no_overlap_loss():
    _, label = batch()
    logits = 1e3 * torch.nn.functional.one_hot(label.long().clamp(max=K - 1), K).movedim(-1, 1).float()
    assert float(dice(logits, label)) == 0
    assert float(lovasz_softmax(logits, label)) == 0


def test_lovasz_is_the_jaccard_loss_at_the_corners():
    """Of every prediction that is sure, of which one is totally wrong: what the extension is named for."""
    label = torch.tensor([[[0, 1, 1, 0, IGNORE_INDEX]]])
    for prediction in itertools.product((0, 1), repeat=4):
        logits = torch.zeros(1, 2, 1, 5)
        for x, predicted in enumerate((*prediction, 0)):
            logits[0, predicted, 0, x] = 1e3
        ious = []
        for own in (0, 1):
            truth, found = {x for x in range(4) if label[0, 0, x] == own}, {x for x in range(4) if prediction[x] == own}
            ious.append(len(truth & found) / len(truth | found))
        assert float(lovasz_softmax(logits, label)) == pytest.approx(1 - sum(ious) / 2, abs=1e-6)


def test_lovasz_has_its_digits_in_large_batches():
    """The difference of neighbouring Jaccard losses in float32 would be off by percents here."""
    logits, label = batch(shape=(1, 2, 400, 500), dtype=torch.float32)
    (ours,) = torch.autograd.grad(lovasz_softmax(logits, label), logits)
    wide = logits.detach().double().requires_grad_()
    (theirs,) = torch.autograd.grad(lovasz_softmax(wide, label), wide)
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-4


def test_dice_of_even_logits():
    """Half a chance for each of two classes, one on 1 and one on 3 of 4 pixels: 1 - 1/3 and 1 - 3/5."""
    label = torch.tensor([[[0, 1, 1, 1]]])
    assert float(dice(torch.zeros(1, 2, 1, 4), label)) == pytest.approx((2 / 3 + 2 / 5) / 2)
