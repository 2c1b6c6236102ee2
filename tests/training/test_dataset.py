import numpy as np
import pytest
import torch

from catsdogs_lib.data.synthetic.render import draw
from catsdogs_lib.imaging import decoding
from catsdogs_lib.imaging.preprocessing import Preprocessing, centre_square, normalise
from catsdogs_lib.training import dataset
from catsdogs_lib.training.dataset import Augmentation, PhotoDataset, augmented_rows, batches


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    photos = []
    for number in range(6):
        photos.append(folder / f"{number}.jpg")
        draw("cat", number).save(photos[-1])
    return photos


def test_plain_photos_are_what_serving_sees(paths):
    tensor, label = PhotoDataset(paths, range(6), Preprocessing())[3]
    assert label == 3
    square = centre_square(decoding.read(paths[3], 224), 224)
    assert np.array_equal(tensor.numpy(), normalise(square, Preprocessing()))


def test_augmentation_depends_on_seed_epoch_and_photo_alone(paths):
    augmentation = Augmentation(0.5, 0.2)

    def pixels(index, epoch=1, seed=0):
        return np.asarray(PhotoDataset(paths, [0] * 6, Preprocessing(), augmentation, seed, epoch).augmented(index))

    torch.manual_seed(1)
    first = pixels(2)
    torch.manual_seed(2)
    assert np.array_equal(pixels(2), first)
    assert not np.array_equal(pixels(2, epoch=2), first)
    assert not np.array_equal(pixels(2, seed=1), first)


def test_augmentation_leaves_the_global_random_state_alone(paths):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    PhotoDataset(paths, [0] * 6, Preprocessing(), Augmentation(0.5, 0.2)).augmented(0)
    assert torch.equal(torch.rand(1), expected)


def test_without_augmentation_there_is_nothing_augmented(paths):
    with pytest.raises(ValueError, match="no augmentation"):
        PhotoDataset(paths, [0] * 6, Preprocessing()).augmented(0)


def test_workers_do_not_change_the_batches(paths, monkeypatch):
    photos = PhotoDataset(paths, range(6), Preprocessing(), Augmentation(0.5, 0.2), seed=3, epoch=2)
    alone = list(batches(photos, 6, shuffle=True))
    assert batches(photos, 2).num_workers == 0, "so few are read at once"
    monkeypatch.setattr(dataset, "MIN_PHOTOS_FOR_WORKERS", 6)
    assert batches(photos, 2).num_workers > 0
    with_workers = list(batches(photos, 2, shuffle=True))
    assert torch.equal(torch.cat([x for x, _ in with_workers]), alone[0][0])
    assert torch.cat([y for _, y in with_workers]).tolist() == alone[0][1].tolist() != list(range(6))


def test_rows_for_the_picture_start_with_the_plain_square(paths):
    rows = augmented_rows(paths[:2], Augmentation(0.5, 0.2), columns=4)
    assert [len(row) for row in rows] == [4, 4]
    assert np.array_equal(np.asarray(rows[1][0]), np.asarray(centre_square(decoding.read(paths[1], 224), 224)))
