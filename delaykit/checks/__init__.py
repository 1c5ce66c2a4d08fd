"""Checks that public calls share: of values, and of arguments by their annotations. Imports no torch."""

from delaykit.checks.annotations import annotated as annotated
from delaykit.checks.annotations import fits as fits
from delaykit.checks.annotations import in_words as in_words
from delaykit.checks.values import LARGE as LARGE
from delaykit.checks.values import LARGEST as LARGEST
from delaykit.checks.values import LONG as LONG
from delaykit.checks.values import affordable as affordable
from delaykit.checks.values import choice as choice
from delaykit.checks.values import flag as flag
from delaykit.checks.values import is_model as is_model
from delaykit.checks.values import is_path as is_path
from delaykit.checks.values import known as known
from delaykit.checks.values import number as number
from delaykit.checks.values import shown as shown
from delaykit.checks.values import whole as whole
