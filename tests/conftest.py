import pytest
import torch

from salattack.faces import load_faces
from salattack.generators import edit_labels, load_generator
from salattack.saliency import load_saliency


@pytest.fixture(scope="session")
def generator():
    return load_generator(device="cpu")


@pytest.fixture(scope="session")
def photos():
    """Three shipped selfies, small enough for many attacks: (3, 3, 64, 64)."""
    faces = load_faces(n_images=3, image_size=64)
    return torch.stack([faces[i].image for i in range(3)])


@pytest.fixture(scope="session")
def target():
    labels = load_faces(n_images=3).labels
    return torch.cat([edit_labels(labels[:2], "Blond_Hair"), edit_labels(labels[2:], "Male")])


@pytest.fixture(scope="session")
def saliency_map(photos):
    """PFAN's maps, with the unsalient part set to exactly zero."""
    with torch.no_grad():
        soft = load_saliency(device="cpu")(photos)
    return soft * (soft > 0.1)
