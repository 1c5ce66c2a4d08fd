"""The control without time: logistic regression on how often each channel spiked. What lies above it needs timing."""

from __future__ import annotations

import numpy as np

from delaykit_lab.task import Frames, Splits

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)


def count_accuracy(splits: Splits) -> float:
    """Test accuracy of a logistic regression on spike counts, its regularisation chosen on validation.

    Counts are standardised by the training set. Among strengths that are equally good, the strongest
    regularisation is taken.

    Returns:
        Fraction of test samples named right.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, validation, test = (_counts(frames) for frames in (splits.train, splits.validation, splits.test))
    models = [make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000)) for c in STRENGTHS]
    scores = [model.fit(*train).score(*validation) for model in models]
    return float(models[int(np.argmax(scores))].score(*test))


def _counts(frames: Frames) -> tuple[np.ndarray, np.ndarray]:
    return frames.spikes.sum(dim=0).numpy().astype(np.float64), frames.labels.numpy()
