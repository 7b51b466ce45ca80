"""A progress bar over gradients, the unit of an attack's cost."""

from tqdm import tqdm


def progress_bar(gradients: int, *, hidden: bool = False) -> tqdm:
    """Return a bar on stderr over so many gradients of g, the unit of an attack's cost."""
    layout = "{desc} {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left"
    return tqdm(total=gradients, disable=hidden, bar_format=layout, ncols=100, leave=False)
