"""Prototypes: cluster centres of the training features. A photo far from all of them is unfamiliar."""

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.preprocessing import normalize
from torch import Tensor

MAX_PROTOTYPES = 256
"""More prototypes detected no more out-of-distribution photos, and fewer detected fewer; see docs/doubt.md."""
MIN_PHOTOS_PER_PROTOTYPE = 4
"""With one prototype for each photo, every other photo would be unfamiliar."""
MAX_CLUSTERED_PHOTOS = 20_000
"""Clustering more takes minutes and changes little."""


def prototypes(features: NDArray[np.float32], seed: int = 0) -> Tensor:
    """Cluster the features of train photos with k-means on the unit sphere and return the centres.

    The distance to the nearest training features is a strong score for photos of other things (Sun et al., 2022,
    "Out-of-distribution detection with deep nearest neighbors"); centres in place of all photos keep it small.

    Parameters
    ----------
    features
        float32 (photos, features), of train photos, by the final network.
    seed
        For the clustering.

    Returns
    -------
    Tensor
        float32 (prototypes, features), unit vectors rounded to fp16.
    """
    unit = normalize(features.astype(np.float64))
    if len(unit) > MAX_CLUSTERED_PHOTOS:
        unit = unit[np.random.default_rng(seed).choice(len(unit), MAX_CLUSTERED_PHOTOS, replace=False)]
    count = max(1, min(MAX_PROTOTYPES, len(unit) // MIN_PHOTOS_PER_PROTOTYPE))
    centres = KMeans(count, n_init=1, max_iter=50, random_state=seed).fit(unit).cluster_centers_
    return torch.from_numpy(normalize(centres)).half().float()
