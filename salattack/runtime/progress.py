"""A progress bar over gradients, the unit of an attack's cost."""

import os
import sys

from tqdm import tqdm


def progress_bar(gradients: int, *, hidden: bool = False) -> tqdm:
    """Return a bar on stderr over so many gradients of g.

    It is hidden where stderr is neither a terminal nor a notebook's, and in a notebook that runs
    with ``TQDM_DISABLE`` set, as `salattack reproduce` sets it.
    """
    notebook = "ipykernel" in sys.modules and not os.environ.get("TQDM_DISABLE")
    hidden = hidden or not (sys.stderr.isatty() or notebook)
    layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left"
    return tqdm(total=gradients, disable=hidden, bar_format=layout, ncols=100, leave=False)
