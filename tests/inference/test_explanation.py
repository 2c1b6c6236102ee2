import io
from pathlib import Path

import numpy as np
import pytest

from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.inference import explanation
from catsdogs_lib.inference.bundle import Bundle
from catsdogs_lib.inference.classifier import Classifier
from catsdogs_lib.inference.explanation import Explanation, class_contrast, explain


def png(kind, seed):
    stream = io.BytesIO()
    draw(kind, seed).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


@pytest.fixture(scope="module")
def classifier():
    return Classifier(Bundle.load(Path("models/reference")))


def test_the_map_of_the_answer_adds_up_to_the_difference_of_the_logits(classifier):
    outputs = classifier.run([classifier.load(png("cat", 1))])
    best = int(outputs.probabilities[0].argmax())
    heat = explain(classifier, png("cat", 1)).heat
    # The biases of the head are the same for every photo: the difference to the logits is theirs.
    other = classifier.run([classifier.load(png("dog", 4))])
    rest = class_contrast(outputs.logits[0], best) - heat.mean()
    again = class_contrast(other.logits[0], best) - class_contrast(other.activation_map[0], best).mean()
    assert rest == pytest.approx(again, abs=1e-3)


def test_the_picture_is_coloured_where_the_map_speaks_for_the_answer(classifier):
    found = explain(classifier, png("dog", 2))
    heat = np.zeros((7, 7), np.float32)
    heat[0, 0] = 1
    picture = np.asarray(Explanation(found.prediction, found.square, heat).overlay()).astype(int)
    colour = np.ptp(picture, axis=-1)
    assert picture.shape[:2] == found.square.size[::-1]
    assert colour[8:20, 8:20].mean() > 30
    assert colour[150:, 150:].max() == 0


def test_covering_places_finds_the_one_that_matters():
    covered = explanation.occlude(np.pad(np.ones((3, 32, 32), np.float32), ((0, 0), (0, 192), (0, 192))))
    fall = np.array([1 - one[:, :32, :32].mean() for one in covered]).reshape(7, 7)
    assert fall.argmax() == 0
    assert fall[3:, 3:].max() == pytest.approx(0)
