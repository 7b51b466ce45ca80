"""Captions of the figures, and the gallery made of them."""

from typing import NamedTuple

PICTURES = (".jpg", ".png")  # of photographs, and charts


class Caption(NamedTuple):
    """What a figure shows, for those who see it and for those who do not, and who draws it."""

    title: str
    description: str
    notebook: str


CAPTIONS = {
    "teaser.jpg": Caption(
        "The attack on two people",
        "A row for each: the photo, its saliency map, the disrupted photo, a fake of the photo and "
        "a fake of the disrupted photo.",
        "framework",
    ),
    "fig_1_4_framework.jpg": Caption(
        "Fig. 1 and 4: the framework",
        "A photo and its edit; below, f_sa makes the saliency map, the masked perturbation is "
        "added to the photo, g edits the sum, and the gradient of the loss goes back to ε.",
        "framework",
    ),
    "fig_2_attribute_editing.jpg": Caption(
        "Fig. 2: edits of clean photos",
        "Rows of faces: the photo, then its five edits in hair colour, gender and age.",
        "attribute_editing",
    ),
    "fig_3_saliency_maps.jpg": Caption(
        "Fig. 3: saliency maps and disrupted faces",
        "Five rows: faces, their saliency maps, the disrupted faces, and what g makes of both, "
        "with the error between the two.",
        "saliency_maps",
    ),
    "fig_5_attribute_visualization.jpg": Caption(
        "Fig. 5: edits of the photo, and of the disrupted photo",
        "For each face two rows of five edits, those of the photo and those of the disrupted one, "
        "with their errors; a frame marks errors above 0.05.",
        "attribute_visualization",
    ),
    "models_saliency.jpg": Caption(
        "Extension: saliency maps of the shipped faces, the 24 worst",
        "Faces, each above its saliency map, the lowest mean inside the face first.",
        "models",
    ),
    "models_training.png": Caption(
        "Extension: the shipped generator along its training",
        "Two charts over training steps: error and similarity to the published output; damage and "
        "the share of broken outputs.",
        "models",
    ),
    "trade_off.png": Caption(
        "Extension: damage against change of the photo",
        "One curve for each attacker, a point for each bound, both axes logarithmic.",
        "trade_off",
    ),
    "trade_off_appendix.png": Caption(
        "Extension: three measures of damage against two of change",
        "Six panels of curves, one curve for each attacker, all axes logarithmic.",
        "trade_off",
    ),
    "smallest_change.png": Caption(
        "Extension: fakes broken against PSNR of the photo",
        "A line for each attacker; single markers show each photo and edit of the minimum-norm "
        "attackers, which break the fakes at a higher PSNR.",
        "smallest_change",
    ),
    "smallest_change_faces.jpg": Caption(
        "Extension: the paper's attack and the smallest change that breaks the fake",
        "Faces disrupted by both attackers, with the PSNR, above their fakes, with the damage; a "
        "frame marks damage above 0.05.",
        "smallest_change",
    ),
    "ablation_transfer.png": Caption(
        "Extension: a photo disrupted against one edit, then edited otherwise",
        "A matrix of damage: rows the edit aimed at, columns the edit asked for.",
        "ablation",
    ),
    "robustness.png": Caption(
        "Extension: the damage that is left when the photo is edited first",
        "Edits in groups; for each attacker the share of the damage that is left, with intervals.",
        "robustness",
    ),
    "paper_reading.png": Caption(
        "Extension: the reading of the paper that comes nearest to Table I",
        "For each attacker L1 and L2: the printed average beside that of the nearest reading.",
        "paper_reading",
    ),
    "transfer.png": Caption(
        "Extension: a perturbation made for one generator, tested on another",
        "A matrix of damage: rows the generator aimed at, columns the generator asked.",
        "transfer",
    ),
    "published/published_fakes.jpg": Caption(
        "Extension: one face, five generators that others trained",
        "A row for each generator: the photo, its fake, and the fakes of the photo disrupted by "
        "I-FGSM and by Saliency-Aware, with their errors.",
        "published_generators",
    ),
    "published/published.png": Caption(
        "Extension: every attacker against five generators that others trained",
        "For each generator the damage by each attacker, with intervals; a panel for each bound.",
        "published_generators",
    ),
    "published/published_transfer.png": Caption(
        "Extension: a perturbation made for one of these generators, tested on another",
        "A matrix of damage: rows the generator aimed at, columns the generator asked.",
        "published_generators",
    ),
}


def gallery() -> str:
    """Return ``figures/README.md``: each figure with caption, notebook and command."""
    parts = [
        "# Figures\n\n`make figures` draws them all. The PDFs of the same names are for print.\n"
    ]
    for name, (title, description, notebook) in CAPTIONS.items():
        parts.append(
            f"## {title}\n\n![{description}]({name})\n\n{description} "
            f"Notebook: [{notebook}](../notebooks/{notebook}.ipynb). "
            f"Command: `salattack run {notebook}`.\n"
        )
    return "\n".join(parts)


if __name__ == "__main__":
    print(gallery(), end="")
