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
        "One row per person: the photo, its saliency map, the disrupted photo, the fake of the "
        "photo and the fake of the disrupted photo.",
        "framework",
    ),
    "fig_1_4_framework.jpg": Caption(
        "Fig. 1 and 4: the framework",
        "Top: g edits a photo. Bottom: f_sa makes the saliency map, the masked perturbation is "
        "added to the photo, g edits the sum, and the gradient of the loss changes ε.",
        "framework",
    ),
    "fig_2_attribute_editing.jpg": Caption(
        "Fig. 2: edits of clean photos",
        "One row per face: the photo, then its five edits in hair colour, gender and age.",
        "attribute_editing",
    ),
    "fig_3_saliency_maps.jpg": Caption(
        "Fig. 3: saliency maps and disrupted faces",
        "Five rows: faces, their saliency maps, the disrupted faces, and the fakes of both, with "
        "the MSE between the two fakes; a frame marks MSE above 0.05.",
        "saliency_maps",
    ),
    "fig_5_attribute_visualization.jpg": Caption(
        "Fig. 5: edits of the photo, and of the disrupted photo",
        "Two rows per face: the edits of the photo, and the edits of the disrupted photo with "
        "their MSE to the edits above; a frame marks MSE above 0.05.",
        "attribute_visualization",
    ),
    "models_saliency.jpg": Caption(
        "Extension: saliency maps of the shipped faces, the 24 worst",
        "Faces, each above its saliency map, in order of the mean saliency inside the face, the "
        "lowest first.",
        "models",
    ),
    "models_training.png": Caption(
        "Extension: the shipped generator along its training",
        "Two charts over training steps. Left: error and similarity to the published output. "
        "Right: damage by PGD, and the share of broken outputs.",
        "models",
    ),
    "trade_off.png": Caption(
        "Extension: damage against change of the photo",
        "One curve per attacker, one point per bound; both axes are logarithmic. A curve further "
        "to the left does the same damage with less change.",
        "trade_off",
    ),
    "trade_off_appendix.png": Caption(
        "Extension: three measures of damage against two of change",
        "Six panels, one curve per attacker; all axes are logarithmic.",
        "trade_off",
    ),
    "smallest_change.png": Caption(
        "Extension: fakes broken against PSNR of the photo",
        "One line per attacker. Each marker at the top is one photo and edit of a minimum-norm "
        "attacker.",
        "smallest_change",
    ),
    "smallest_change_faces.jpg": Caption(
        "Extension: the paper's attack and the smallest change that breaks the fake",
        "Faces disrupted by both attackers, with the PSNR, above their fakes, with the damage; a "
        "frame marks damage above 0.05.",
        "smallest_change",
    ),
    "ablation_transfer.png": Caption(
        "Extension: a photo disrupted against one edit, tested on the others",
        "A matrix of damage. A row is the edit that the attack was aimed at, and a column is the "
        "edit that the generator makes.",
        "ablation",
    ),
    "robustness.png": Caption(
        "Extension: the damage that remains when the photo is edited first",
        "The share of the damage that remains, with intervals, for each attacker and edit of the "
        "photo.",
        "robustness",
    ),
    "paper_reading.png": Caption(
        "Extension: the reading of the paper that comes nearest to Table I",
        "L1 and L2 of each attacker: the printed average, and that of the nearest reading.",
        "paper_reading",
    ),
    "transfer.png": Caption(
        "Extension: a perturbation made for one generator, tested on another",
        "A matrix of I-FGSM's damage. A row is the generator that the attack was aimed at, and a "
        "column is the generator that edits the photo.",
        "transfer",
    ),
    "published/published_fakes.jpg": Caption(
        "Extension: one face, five generators that others trained",
        "One row per generator: the photo, its fake, and the fakes of the photo disrupted by "
        "I-FGSM and by Saliency-Aware, with their MSE to the first fake; a frame marks MSE above "
        "0.05.",
        "published_generators",
    ),
    "published/published.png": Caption(
        "Extension: every attacker against five generators that others trained",
        "The damage by each attacker to each generator, with intervals; one panel per bound. "
        "EoT-Blur was measured at bound 0.05 only.",
        "published_generators",
    ),
    "published/published_transfer.png": Caption(
        "Extension: a perturbation made for one of these generators, tested on another",
        "A matrix of I-FGSM's damage. A row is the generator that the attack was aimed at, and a "
        "column is the generator that edits the photo.",
        "published_generators",
    ),
}


def gallery() -> str:
    """Return ``figures/README.md``: each figure with caption, notebook and command."""
    parts = [
        "# Figures\n\n`make figures` draws these figures, those of the published generators only "
        "if they are in the cache\n(`salattack assets fetch published`). The PDFs, where there is "
        "one of the same name, are for print.\n"
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
