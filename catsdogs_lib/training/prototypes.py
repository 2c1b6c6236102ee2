"""What a network has learned from, in few vectors: a photo far from all of them is unfamiliar."""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize
from torch import Tensor

MAX_PROTOTYPES = 256
"""More prototypes found no more of other photos, and fewer found fewer; see docs/doubt.md."""
PHOTOS_EACH = 4
"""Of few photos there are fewer prototypes: one a photo would call every other photo unfamiliar."""
SAMPLE = 20_000
"""Photos that are clustered; more take minutes and move little."""


def prototypes(features: NDArray[np.float32], seed: int = 0) -> Tensor:
    """Centres of the clusters (k-means on the unit sphere) that the features of train photos form.

    The distance to the nearest training features is a strong score for photos of other things (Sun et al., 2022,
    "Out-of-distribution detection with deep nearest neighbors"); centres instead of all photos keep it small.

    Parameters
    ----------
    features
        float32 (photos, features), of train photos, by the final network.
    seed
        Of the clustering.

    Returns
    -------
    Tensor
        float32 (prototypes, features), unit vectors rounded to fp16.
    """
    unit = normalize(features.astype(np.float64))
    if len(unit) > SAMPLE:
        unit = unit[np.random.default_rng(seed).choice(len(unit), SAMPLE, replace=False)]
    count = max(1, min(MAX_PROTOTYPES, len(unit) // PHOTOS_EACH))
    centres = KMeans(count, n_init=1, max_iter=50, random_state=seed).fit(unit).cluster_centers_
    return torch.from_numpy(normalize(centres)).half().float()
