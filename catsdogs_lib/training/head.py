"""The head of a frozen network: logistic regression on standardized features."""

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from torch import nn

from catsdogs_lib.training.settings import TrainingSettings


def fit_head(
    features: NDArray[np.float32], labels: NDArray[np.int64], settings: TrainingSettings, head: nn.Linear
) -> None:
    """Fit a linear head in place, on each photo and its mirror image.

    Parameters
    ----------
    features
        float32 (photos, 2, features), from the cache.
    labels
        int64 (photos,), 0..C-1.
    settings
        `logistic_regression_c` is the inverse strength of the L2 penalty.
    head
        Linear (features -> C). The standardization is folded into its weights.
    """
    flat = features.reshape(-1, features.shape[-1]).astype(np.float64)
    scaler = StandardScaler().fit(flat)
    regression = LogisticRegression(C=settings.logistic_regression_c, max_iter=2000)
    with warnings.catch_warnings():
        # A solver that stops early is no failure: validation decides how good the head is.
        warnings.simplefilter("ignore", ConvergenceWarning)
        regression.fit(scaler.transform(flat), np.repeat(labels, features.shape[1]))
    coefficients, intercept = regression.coef_, regression.intercept_
    if len(coefficients) == 1:
        # Two classes: sigmoid(z) is the softmax of (-z/2, z/2).
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    weight = coefficients / scaler.scale_
    bias = intercept - weight @ scaler.mean_
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))
        head.bias.copy_(torch.from_numpy(bias))
