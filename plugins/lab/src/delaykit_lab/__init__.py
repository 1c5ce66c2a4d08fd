"""What is *about* learning rather than part of a synapse: data, tasks, a small runner, the demo.

Every public name is imported on first use, so that ``delaykit --help`` loads neither torch nor h5py.

Example:
    >>> from delaykit_lab import JapaneseVowels
    >>> splits = JapaneseVowels().splits(seed=0)
    >>> tuple(splits.train.spikes.shape), len(splits.validation), len(splits.test)
    ((58, 216, 24), 54, 370)
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
