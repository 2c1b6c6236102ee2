import io
import subprocess
import sys

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from catsdogs_lib.evaluation import metrics
from catsdogs_lib.evaluation.calibration import softmax
from catsdogs_lib.evaluation.metrics import Interval
from catsdogs_lib.evaluation.plots import charts, dataset, galleries, style, training


def answers(size=200, classes=2, skill=2.0, seed=0):
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=size)
    logits = random.normal(size=(size, classes))
    logits[np.arange(size), labels] += skill
    return softmax(logits), labels


def texts(figure):
    """Every visible text of the figure, after drawing it as a report would."""
    figure.savefig(io.BytesIO(), format="png")
    return [text.get_text() for text in figure.findobj(Text) if text.get_text() and text.get_visible()]


def overlapping(figure):
    """Pairs of texts drawn over each other."""
    figure.savefig(io.BytesIO(), format="png")
    undrawn = {label for axes in figure.axes for label in out_of_view(axes)}
    shown = [
        (text.get_text(), text.get_window_extent().padded(-1))
        for text in figure.findobj(Text)
        if text.get_text().strip() and text.get_visible() and text not in undrawn
    ]
    return [(a, b) for i, (a, x) in enumerate(shown) for b, y in shown[i + 1 :] if x.overlaps(y)]


def out_of_view(axes):
    """Labels that matplotlib keeps but does not draw: beyond the limits, or of axes that are hidden."""
    for axis in (axes.xaxis, axes.yaxis):
        low, high = sorted(axis.get_view_interval())
        for tick in axis.get_major_ticks() + axis.get_minor_ticks():
            if not (axes.get_visible() and axes.axison and low <= tick.get_loc() <= high):
                yield from (tick.label1, tick.label2)


def photo(width=300, height=200):
    return Image.new("RGB", (width, height), (200, 120, 40))


def slices():
    rows = [
        ("brightness", "dark", 40, 0.7, True),
        ("brightness", "bright", 60, 0.95, False),
        ("shape", "square", 9, 0.9, False),
    ]
    return pd.DataFrame(
        [
            {
                "slice": name,
                "value": value,
                "photos": photos,
                "accuracy": accuracy,
                "accuracy_low": accuracy - 0.05,
                "accuracy_high": accuracy + 0.05,
                "log_loss": 1 - accuracy,
                "log_loss_low": 0.9 - accuracy,
                "log_loss_high": 1.1 - accuracy,
                "p_value": 0.01 if worse else 1.0,
                "worse": worse,
            }
            for name, value, photos, accuracy, worse in rows
        ]
    )


HISTORY = pd.DataFrame(
    {"epoch": [1, 2, 3], "train_loss": [0.6, 0.4, 0.2], "val_loss": [0.5, 0.3, 0.35], "val_accuracy": [0.8, 0.9, 0.91]}
)
COMPARED = {
    "baseline_cnn": {"accuracy": Interval(0.8, 0.77, 0.83), "log_loss": Interval(0.5, 0.45, 0.55)},
    "efficientnet_lite0": {"accuracy": Interval(0.99, 0.98, 1.0), "log_loss": Interval(0.03, 0.02, 0.05)},
}
FIGURES = {
    "confusion": lambda: charts.confusion_figure([[95, 5], [2, 98]], ["cat", "dog"]),
    "reliability": lambda: charts.reliability_figure({"a": answers(), "b": answers(skill=1)}),
    "roc": lambda: charts.roc_figure({"a": answers()}, ["cat", "dog"]),
    "confidence": lambda: charts.confidence_histogram(*answers(), threshold=0.9),
    "loss": lambda: training.loss_figure(HISTORY),
    "comparison": lambda: charts.comparison_figure(COMPARED),
    "slices": lambda: charts.slices_figure(slices()),
    "counts": lambda: dataset.counts_figure(pd.DataFrame({"train": [80, 90], "test": [10, 11]}, index=["cat", "dog"])),
    "histogram": lambda: dataset.histogram_figure(np.arange(100.0), "Shorter side (pixels)", "Sizes"),
    "gallery": lambda: galleries.gallery_figure([(photo(), "cat", "dog", 0.9, "a/b.jpg")] * 7, "Mistakes"),
    "augmentation": lambda: galleries.augmentation_figure([[photo()] * 3] * 2),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_a_title_labelled_axes_and_no_text_over_another(name):
    figure = FIGURES[name]()
    assert isinstance(figure, Figure)
    assert to_hex(figure.get_facecolor()) == "#ffffff"
    assert figure.get_suptitle() or figure.axes[0].get_title()
    assert overlapping(figure) == []
    if name not in ("gallery", "augmentation"):
        shared = {axes.get_xlabel() for axes in figure.axes} | {axes.get_ylabel() for axes in figure.axes}
        assert len(shared - {""}) >= 2


DARK_STYLE = ("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color", "axes.edgecolor")


def is_white(text):
    return to_hex(text.get_color()) == "#ffffff"


@pytest.mark.parametrize("name", FIGURES)
def test_text_stays_dark_whatever_the_style_of_the_person(name):
    with matplotlib.rc_context(dict.fromkeys(DARK_STYLE, "white") | {"axes.facecolor": "black"}):
        figure = FIGURES[name]()
        figure.savefig(io.BytesIO(), format="png")
    pale = [
        text.get_text()
        for text in figure.findobj(Text)
        if text.get_text().strip() and to_hex(text.get_color()) == "#ffffff"
    ]
    assert pale == [] or (name == "confusion" and len(pale) == 2)  # white on dark blue


def test_nothing_touches_the_global_state_of_pyplot():
    code = (
        "import sys; from catsdogs_lib.evaluation.plots import dataset; "
        "dataset.histogram_figure([1, 2, 3], 'x', 'y'); sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_confusion_figure_writes_each_count_with_its_share():
    shown = texts(charts.confusion_figure([[95, 5], [0, 0]], ["cat", "dog"], "Test"))
    assert {"95\n95.0%", "5\n5.0%", "0\n0.0%", "cat", "dog", "Answer", "True class", "Test"} <= set(shown)


def test_a_confusion_of_many_classes_leaves_noughts_out():
    matrix = np.diag(np.arange(11, 31))
    cells = [text.get_text() for text in charts.confusion_figure(matrix, [f"c{i}" for i in range(20)]).axes[0].texts]
    assert cells == [str(i) for i in range(11, 31)]


def test_the_reliability_figure_draws_bins_bars_and_the_calibration_error():
    probabilities, labels = answers()
    figure = charts.reliability_figure({"mine": (probabilities, labels)})
    bins = metrics.reliability_bins(probabilities, labels, 10, equal_width=True)
    top, below = figure.axes
    points, _, (bars,) = top.containers[0]
    assert points.get_ydata() == pytest.approx(bins["accuracy"])
    assert points.get_xdata() == pytest.approx(bins["confidence"])
    first = metrics.wilson(bins["accuracy"][0] * bins["count"][0], bins["count"][0])
    assert bars.get_segments()[0][:, 1] == pytest.approx([first.low, first.high])
    error = metrics.expected_calibration_error(probabilities, labels)
    assert f"mine: calibration error {error:.4f}" in texts(figure)
    diagonal = top.lines[0]
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0.5, 1]
    assert below.get_yscale() == "log"
    assert below.patches


@pytest.mark.parametrize("classes", [2, 3])
def test_the_area_under_the_drawn_roc_is_the_auc(classes):
    probabilities, labels = answers(classes=classes, skill=1)
    figure = charts.roc_figure({"mine": (probabilities, labels)})
    curve = figure.axes[0].lines[0]
    expected = metrics.point(probabilities, labels)["roc_auc"]
    assert np.trapezoid(curve.get_ydata(), curve.get_xdata()) == pytest.approx(expected, abs=2e-3)
    assert f"mine: AUC {expected:.4f}" in texts(figure)
    assert len(figure.axes[0].child_axes) == 1


def test_a_roc_without_a_second_class_is_empty_not_an_error():
    probabilities, _ = answers()
    figure = charts.roc_figure({"mine": (probabilities, np.zeros(200, dtype=int))}, ["cat", "dog"])
    assert "mine: AUC nan" not in texts(figure)
    assert "mine: AUC not defined" in texts(figure)


def test_the_confidence_histogram_counts_right_and_wrong_apart():
    probabilities, labels = answers()
    right = int((probabilities.argmax(axis=1) == labels).sum())
    figure = charts.confidence_histogram(probabilities, labels, 0.9)
    drawn = [sum(bar.get_height() for bar in axes.patches) for axes in figure.axes]
    assert drawn == [right, 200 - right]
    assert {f"right answers: {right}", f"wrong answers: {200 - right}", "threshold 0.900"} <= set(texts(figure))


def test_a_flawless_model_has_an_empty_panel_of_wrong_answers():
    assert "wrong answers: 0" in texts(charts.confidence_histogram(np.eye(2)[[0, 1]], [0, 1]))


def test_the_loss_figure_marks_the_epoch_with_the_lowest_validation_loss():
    figure = training.loss_figure(HISTORY)
    losses, accuracies = figure.axes
    assert list(losses.lines[0].get_ydata()) == [0.6, 0.4, 0.2]
    assert list(losses.lines[1].get_ydata()) == [0.5, 0.3, 0.35]
    assert (*losses.lines[-1].get_xdata(), *losses.lines[-1].get_ydata()) == (2, 0.3)
    assert (*accuracies.lines[-1].get_xdata(), *accuracies.lines[-1].get_ydata()) == (2, 0.9)
    assert {"best epoch 2: 0.3000", "best epoch 2: 90.0%", "Epoch", "Log loss (nats)"} <= set(texts(figure))


def test_a_history_of_one_epoch_or_without_validation_is_drawn():
    assert "best epoch 1: 0.5000" in texts(training.loss_figure(HISTORY.head(1)))
    assert not any("best" in text for text in texts(training.loss_figure(HISTORY.assign(val_loss=np.nan))))


def test_the_comparison_draws_each_interval_with_its_value():
    figure = charts.comparison_figure(COMPARED)
    accuracy = figure.axes[0]
    assert list(accuracy.lines[0].get_xdata()) == [0.77, 0.83]
    assert list(accuracy.lines[1].get_xdata()) == [0.8]
    assert {"0.8000", "0.9900", "0.5000", "0.0300", *COMPARED, "Accuracy (higher is better)"} <= set(texts(figure))


def test_a_metric_that_is_not_defined_says_so():
    nan = float("nan")
    figure = charts.comparison_figure({"mine": {"roc_auc": Interval(nan, nan, nan)}})
    assert "not defined" in texts(figure)


def test_the_slices_figure_flags_what_is_worse():
    figure = charts.slices_figure(slices())
    names = {text.get_text(): to_hex(text.get_color()).upper() for text in figure.axes[0].get_yticklabels()}
    assert names == {
        "brightness: dark   n = 40": style.VERMILION,
        "brightness: bright   n = 60": style.INK,
        "shape: square   n = 9": style.INK,
    }
    shown = texts(figure)
    assert "all photos: accuracy 85.0%" in shown
    assert "worse than the rest (p < 0.05, Holm)" in shown
    assert not any("worse" in text for text in texts(charts.slices_figure(slices().assign(worse=False))))


def test_the_counts_figure_writes_a_number_on_every_bar():
    table = pd.DataFrame({"train": [8000, 8003], "val": [0, 7]}, index=["cat", "dog"])
    figure = dataset.counts_figure(table)
    assert [bar.get_height() for bar in figure.axes[0].patches] == [8000, 8003, 0, 7]
    assert {"8,000", "8,003", "0", "7", "cat", "dog", "train", "val"} <= set(texts(figure))


def test_the_histogram_shows_the_median_and_says_what_it_left_out():
    figure = dataset.histogram_figure([1, 2, 3, np.nan, np.inf], "Width (pixels)", "Sizes")
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == 3
    assert {"median 2", "Width (pixels) (2 unknown left out)", "Sizes", "Photos"} <= set(texts(figure))
    assert "no values" in texts(dataset.histogram_figure([], "Width (pixels)", "Sizes"))
    assert "median 4" in texts(dataset.histogram_figure([4, 4, 4], "Width (pixels)", "Sizes"))


def test_the_gallery_says_what_was_wrong_and_keeps_photos_small():
    items = [
        (photo(3000, 100), "cat", "dog", 0.9996, "far/away/wrong.jpg"),
        galleries.GalleryItem(photo(), "dog", "dog", 1.0, "a-name-far-too-long-to-be-drawn-below-a-photo.jpg"),
    ]
    figure = galleries.gallery_figure(items, "Answers", columns=3)
    wrong, right = figure.axes
    assert wrong.get_title() == "dog 99.9%\nbut is cat"
    assert to_hex(wrong.title.get_color()).upper() == style.VERMILION
    assert right.get_title() == "dog 100%"
    assert wrong.get_xlabel() == "wrong.jpg"
    assert right.get_xlabel() == "a-name-far-too-…hoto.jpg"
    assert wrong.images[0].get_array().shape == (256, 256, 3)


def test_an_empty_gallery_says_so():
    assert {"no photos to show", "Mistakes"} <= set(texts(galleries.gallery_figure([], "Mistakes")))
    assert "no photos to show" in texts(galleries.augmentation_figure([]))


def test_the_gallery_fills_rows_and_leaves_the_rest_blank():
    figure = galleries.gallery_figure([(photo(), "cat", "cat", 0.8, "a.jpg")] * 4, "Four", columns=3)
    assert len(figure.axes) == 6
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 0, 0]


def test_augmentation_names_the_first_photo_of_a_row_as_it_is():
    figure = galleries.augmentation_figure([[photo()] * 3, [photo()] * 2])
    assert [axes.get_title() for axes in figure.axes] == ["as it is", "drawn 1", "drawn 2", "", "", ""]
    assert [len(axes.images) for axes in figure.axes] == [1, 1, 1, 1, 1, 0]
