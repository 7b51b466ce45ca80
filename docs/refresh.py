"""Rewrite every number that README.md and docs/*.md quote, from the committed files.

`<!-- table: NAME -->` … `<!-- end -->` holds a table: a file of this repository, or one of
`TABLES`. `<!--=NAME-->…<!--/-->` holds one of `values` in a sentence. `make docs-tables` runs
this, and tests/test_readme.py checks that it would change nothing.
"""

import json
import re
from pathlib import Path

import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "REPRODUCING.md", *sorted((ROOT / "docs").glob("*.md")))
TABLE = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.S)
VALUE = re.compile(r"(<!--=(\S+?)-->).*?(<!--/-->)")
MANIFEST = json.loads((ROOT / "figures" / "manifest.json").read_text())


def csv(name: str, *index: str) -> pd.DataFrame:
    """Return a committed CSV table by its path below figures/."""
    table = pd.read_csv(ROOT / "figures" / name)
    return table.set_index(list(index)) if index else table


def markdown(name: str, nth: int, index: str) -> pd.DataFrame:
    """Return the nth table of a committed Markdown file below figures/, its cells as text."""
    text = (ROOT / "figures" / name).read_text()
    block = re.findall(r"(?:^\|.*\n)+", text + "\n", re.M)[nth].splitlines()
    head, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in block)
    return pd.DataFrame(rows, columns=head).set_index(index)


def drawn(head: list[str], rows: list[list[object]]) -> str:
    """Return a Markdown table: words at the left of their column, numbers at the right."""
    columns = (" ".join(map(str, cells)) for cells in zip(*rows, strict=True))
    lines = [head, ["---" if re.search("[a-z]{4}", text) else "---:" for text in columns], *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def interval(row: pd.Series, name: str) -> str:
    """Return 'mean [low, high]' of a column of numbers or of text."""
    mean, low, high = (float(row[name + end]) for end in ("", "_low", "_high"))
    return f"{mean:.2f} [{low:.2f}, {high:.2f}]"


def reproduces() -> str:
    """Return Table I in short: five attackers, ours beside the printed averages, the damage."""
    table, rows = csv("table_1.csv", "attacker"), []
    names = {
        "i-fgsm": "I-FGSM",
        "spread-spectrum": "Spread-Spectrum",
        "eot-blur": "EoT-Blur",
        "saliency-aware": "Saliency-Aware",
        "l2-pgd": "L2-PGD (extension)",
    }
    for name, label in names.items():
        row = table.loc[name]
        printed = [row["paper_l1"], row["paper_l2_x100"]]
        paper = ["–" if pd.isna(value) else f"{value:.3f}" for value in printed]
        measured = [f"{row[key]:.3f}" for key in ("l1", "l2_x100", "damage_l2")]
        rows.append([label, measured[0], paper[0], measured[1], paper[1], measured[2]])
    head = ["Attacker", "L1", "L1, paper", "L2 × 100", "L2 × 100, paper", "Damage"]
    return drawn(head, rows)


def trade_off() -> str:
    """Return L2 relative to I-FGSM's at equal damage."""
    shipped = csv("trade_off_at_equal_damage.csv", "attacker")
    celeba = markdown("celeba/trade_off.md", 1, "attacker")
    names = {
        "I-FGSM": ("i-fgsm", "i-fgsm"),
        "L2-PGD": ("l2-pgd", "l2-pgd"),
        "L2-PGD, salient region": (None, "l2-pgd, salient"),
        "PGD": ("pgd", None),
        "Anti-Forgery": ("anti-forgery", None),
        "Nullifying": ("nullifying", None),
        "Spread-Spectrum": ("spread-spectrum", "spread-spectrum"),
        "Saliency-Aware": ("saliency-aware", "saliency-aware"),
        "Universal": ("universal", None),
    }
    rows = []
    for label, (here, there) in names.items():
        one = interval(shipped.loc[here], "ratio") if here else "–"
        two = interval(celeba.loc[there], "ratio") if there else "–"
        rows.append([label, one, two])
    return drawn(["L2 relative to I-FGSM's", "8 shipped faces", "24 CelebA faces"], rows)


def background() -> str:
    """Return the change of the background relative to I-FGSM's at equal damage, on CelebA."""
    table = markdown("celeba/trade_off.md", 2, "attacker")
    names = {
        "Saliency-Aware": "saliency-aware",
        "L2-PGD": "l2-pgd",
        "L2-PGD, salient region": "l2-pgd, salient",
        "Spread-Spectrum": "spread-spectrum",
    }
    rows = [[k, interval(table.loc[v], "ratio")] for k, v in names.items()]
    return drawn(["Background L1 relative to I-FGSM's", "24 CelebA faces"], rows)


def ablation() -> str:
    """Return damage per L2 of a few variants, relative to the paper's attacker."""
    shipped = csv("ablation.csv", "question", "variant")["damage_per_l2"]
    celeba = markdown("celeba/ablation.md", 0, "question").set_index("variant", append=True)
    variants = {
        "no blur in the loss": ("blur", "none"),
        "gradient at I × M (Eq. 10 as printed)": ("gradient", "at I × M"),
        "complement of the mask": ("mask", "PFAN, complement"),
        "random mask of the same area": ("mask", "random, same area"),
        "no mask": ("mask", "none"),
    }
    rows = [
        [label, f"{shipped[key]:.2f}", celeba.loc[key, "damage per L2"]]
        for label, key in variants.items()
    ]
    return drawn(["Variant", "4 shipped faces", "12 CelebA faces"], rows)


def steps() -> str:
    """Return the damage by number of steps."""
    shipped = csv("ablation.csv", "question", "variant").loc["steps", "damage_l2"]
    rows = [["damage, 4 shipped faces", *(f"{value:.3f}" for value in shipped)]]
    return drawn(["Steps", *shipped.index], rows)


def robustness() -> str:
    """Return the share of the damage that is left after edits of the photo."""
    shipped = csv("robustness.csv", "transform", "attacker")["remaining"]
    celeba = markdown("celeba/robustness.md", 0, "Edit of the photo")
    names, rows = ("I-FGSM", "Spread-Spectrum", "Saliency-Aware"), []
    for edit in ("JPEG 75", "Gaussian blur σ 1", "Gaussian blur σ 2", "resize ½ and back"):
        row = [edit]
        for label in names:
            left = celeba.loc[edit, label].partition(" ")[0]
            row += [f"{100 * shipped[edit, label.lower()]:.0f} %", f"{left} %"]
        rows.append(row)
    head = [f"{name}, {faces}" for name in names for faces in ("shipped", "CelebA")]
    return drawn(["Edit of the photo", *head], rows)


def transfer() -> str:
    """Return the damage to each generator, by the generator that the attack was made for."""
    table = csv("transfer.csv")
    rows = [[*row[:2], *(f"{value:.3f}" for value in row[2:])] for row in table.values.tolist()]
    return drawn(["Attacker", "Made for", *table.columns[2:]], rows)


def dimensions() -> str:
    """Return each attacker's disruption, robustness, transferability and visibility."""
    left = csv("robustness.csv", "attacker", "transform")
    table, across = csv("table_1.csv", "attacker"), csv("transfer.csv", "attacker", "aimed at")
    names = {
        "I-FGSM": "i-fgsm",
        "Spread-Spectrum": "spread-spectrum",
        "Saliency-Aware": "saliency-aware",
        "Minimum-Norm": "minimum-norm",
    }
    rows = []
    for label, name in names.items():
        if name not in table.index or name not in left.index:
            continue
        found = left.loc[name]
        row = [label, f"{found.loc['8 bits', 'damage_l2']:.3f}"]
        for edit in ("JPEG 75", "Gaussian blur σ 1", "noise σ 0.05"):
            row.append(f"{100 * found.loc[edit, 'remaining']:.0f} %")
        moved = "–"
        if label in across.index:
            own, other = across.loc[label].iloc[0]
            moved = f"{100 * other / own:.0f} %"
        rows.append(
            [*row, moved, f"{table.loc[name, 'psnr']:.1f}", f"{table.loc[name, 'ssim']:.3f}"]
        )
    edits = ["left by JPEG 75", "by blur σ 1", "by noise σ 0.05"]
    head = ["Attacker", "Disruption: MSE", *edits, "transfer to CycleGAN", "PSNR (dB)", "SSIM"]
    return drawn(head, rows)


def published() -> str:
    """Return how often and how badly two attackers break the generators that others published."""
    table, rows = csv("published/published.csv", "generator", "bound", "attacker"), []
    bound = table.index.unique("bound").max()
    for generator in table.index.unique("generator"):
        row = [generator, f"{table.loc[generator, 'faces'].max():.0f}"]
        for name in ("i-fgsm", "saliency-aware"):
            one = table.loc[generator, bound, name]
            broken = f"{100 * one['success']:.0f} %"
            row += [f"{one['damage_l2']:.3f}", broken, f"{one['relative']:.1f}"]
        rows.append(row)
    names = ("I-FGSM", "Saliency-Aware")
    head = [f"{n}: {what}" for n in names for what in ("damage", "broken", "damage / edit")]
    return drawn(["Generator", "Faces", *head], rows)


def published_smallest() -> str:
    """Return the smallest change that breaks the fakes of each generator, beside the paper's."""
    table, rows = csv("published/smallest_change.csv", "generator", "attacker", "bound"), []
    for generator, part in table.groupby(level="generator", sort=False):
        row = [generator, f"{part['samples'].iloc[0]:.0f}"]
        for name in ("minimum-norm", "minimum-norm-everywhere", "saliency-aware"):
            one = part.xs(name, level="attacker").droplevel("generator")
            one = one.loc[0.1] if name == "saliency-aware" else one.iloc[0]
            look = f"{one['psnr']:.1f} dB / {one['ssim']:.3f}"
            row += [f"{100 * one['success']:.0f} %", look]
        rows.append(row)
    head = ["Generator", "Fakes"]
    for label in ("Minimum-Norm", "Minimum-Norm everywhere", "Saliency-Aware, bound 0.1"):
        head += [f"{label}: broken", "PSNR / SSIM"]
    return drawn(head, rows)


def protect() -> str:
    """Return what `protect` changes and breaks in the shipped photos, by its settings."""
    rows = pd.read_csv(ROOT / "docs" / "protect.csv", index_col="setting")
    every, few = rows.loc["default"], rows.loc["error 1"]
    settings = rows.index.unique().drop(["default", "fixed strength"])
    parts = [rows.loc["fixed strength"], every[every["photo"].isin(few["photo"])]]
    parts += [rows.loc[name] for name in settings]
    table = []
    for key, (name, digits) in {
        "broken": ("Edits broken of 5", 1),
        "broken_labelled": ("Edits broken, aligned by labelled eyes", 1),
        "broken_elsewhere": ("Edits broken, six alignments 1 px off", 1),
        "broken_far": ("Edits broken, six alignments 2 px off", 1),
        "psnr_aligned": ("PSNR of the aligned face, dB", 1),
        "ssim": ("SSIM of the face in the photo", 2),
        "tint": ("Tint, of 255", 0),
    }.items():
        low, high = (f"{value:.{digits}f}" for value in (every[key].min(), every[key].max()))
        means = [f"{part[key].mean():.{digits}f}" for part in (every, *parts)]
        table.append([name, means[0], f"{low} to {high}", *means[1:]])
    head = [f"Mean over {len(every)} photos", "Default", "Range of the default", "Fixed strength"]
    return drawn([*head, *(f"{name}, {len(few)} photos" for name in ("Default", *settings))], table)


def alignment() -> str:
    """Return how far crops by detected and by labelled eyes lie apart, in px of the crop."""
    table = pd.read_csv(ROOT / "docs" / "alignment.csv", index_col="photo")
    rows = [
        [f"Over the {name}", f"{px.mean():.1f}", f"{px.min():.1f} to {px.max():.1f}"]
        for name, px in table.items()
    ]
    return drawn(["Distance, px", f"Mean of {len(table)} photos", "Range"], rows)


def minutes(notebook: str) -> str:
    """Return how long a notebook took in the committed run."""
    seconds = MANIFEST["notebooks"][notebook]["seconds"]
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def claims() -> str:
    """Return the verdicts on the paper's claims, and how long they take."""
    table = csv("claims.csv")[["claim", "source", "printed", "measured", "verdict"]]
    head = ["Claim", "In the paper", "Printed", "Expected", "Verdict"]
    text = drawn(head, table.values.tolist())
    return f"{text}\n\nTime: {minutes('attack_comparison')}."


def own() -> str:
    """Return what each other notebook is expected to give, its file and time."""
    findings = {
        "equal_aware": ("trade_off_at_equal_damage", "L2 of Saliency-Aware, I-FGSM's being 1"),
        "equal_ours": ("trade_off_at_equal_damage", "L2 of L2-PGD, I-FGSM's being 1"),
        "no_blur": ("ablation", "damage per L2 without the blur"),
        "at_masked": ("ablation", "damage per L2 with the gradient at I × M"),
        "jpeg_ifgsm": ("robustness", "I-FGSM's damage left after JPEG 75"),
        "jpeg_aware": ("robustness", "Saliency-Aware's damage left after JPEG 75"),
        "transfer_own": ("transfer", "I-FGSM's damage to StarGAN, for which it was made"),
        "transfer_other": ("transfer", "the same picture's damage to CycleGAN"),
    }
    known, rows = values(), []
    for name, (file, finding) in findings.items():
        notebook = file.removesuffix("_at_equal_damage")
        rows.append([finding, notebook, f"`{file}.csv`", known[name], "15 %", minutes(notebook)])
    head = ["Finding", "Notebook", "File", "Expected", "±", "Time"]
    return drawn(head, rows)


TABLES = {
    call.__name__: call
    for call in (
        claims,
        own,
        reproduces,
        trade_off,
        background,
        ablation,
        steps,
        robustness,
        transfer,
        dimensions,
        published,
        published_smallest,
        protect,
        alignment,
    )
}


def values() -> dict[str, str]:
    """Return every number that a sentence quotes, by name."""
    table = csv("table_1.csv", "attacker")
    aware = table.loc["saliency-aware"]
    equal = csv("trade_off_at_equal_damage.csv", "attacker")["ratio"]
    far = markdown("celeba/trade_off.md", 2, "attacker").loc["saliency-aware", "ratio"]
    per_l2 = csv("ablation.csv", "question", "variant")["damage_per_l2"]
    left = csv("robustness.csv", "transform", "attacker")["remaining"]
    means = csv("trade_off_means.csv", "attacker", "bound")
    across = csv("transfer.csv", "attacker").iloc[0]
    others = csv("published/published.csv", "attacker", "bound")["damage_l2"]
    strong, gradient = (others.loc[name, 0.1] for name in ("saliency-aware", "i-fgsm"))
    smallest = csv("celeba/smallest_change.csv", "sample", "attacker")
    least = smallest.loc["24 CelebA faces, one edit each in turn"]
    shinkai = smallest.loc["24 CelebA faces, CartoonGAN Shinkai"]
    shinkai = shinkai.loc["minimum-norm-everywhere"]
    figure = least.loc["saliency-aware"].query("bound == 0.1").iloc[0]
    return {
        "claims": (ROOT / "figures" / "claims.md").read_text().splitlines()[0].rstrip("."),
        "aware_l1": f"{aware['l1_ratio']:.2f}",
        "aware_l2": f"{aware['l2_ratio']:.2f}",
        "aware_damage": f"{aware['damage_l2']:.3f}",
        "aware_broken": f"{100 * aware['success']:.0f} %",
        "ifgsm_damage": f"{table.loc['i-fgsm', 'damage_l2']:.3f}",
        "ifgsm_broken": f"{100 * table.loc['i-fgsm', 'success']:.0f} %",
        "equal_aware": f"{equal['saliency-aware']:.1f}",
        "equal_ours": f"{equal['l2-pgd']:.2f}",
        "equal_background": f"{float(far):.2f}",
        "no_blur": f"{per_l2['blur', 'none']:.1f}",
        "at_masked": f"{per_l2['gradient', 'at I × M']:.1f}",
        "jpeg_ifgsm": f"{100 * left['JPEG 75', 'i-fgsm']:.0f} %",
        "jpeg_aware": f"{100 * left['JPEG 75', 'saliency-aware']:.0f} %",
        "nullified": f"{100 * (1 - means.loc[('nullifying', 0.05), 'edit_left']):.0f} %",
        "transfer_own": f"{across['stargan-celeba128-w32']:.3f}",
        "transfer_other": f"{across['cyclegan-blond128-w32']:.3f}",
        "others": f"{len(strong)}",
        "others_weak": f"{(others.loc['saliency-aware', 0.05] > 0.05).sum()}",
        "others_broken": f"{(strong > 0.05).sum()}",
        "others_gradient": f"{(gradient > 0.05).sum()}",
        "least_broken": f"{100 * least.loc['minimum-norm', 'success']:.0f} %",
        "least_psnr": f"{least.loc['minimum-norm', 'psnr']:.1f}",
        "shinkai_broken": f"{100 * shinkai['success']:.0f} %",
        "shinkai_psnr": f"{shinkai['psnr']:.1f}",
        "aware_broken_far": f"{100 * figure['success']:.0f} %",
        "aware_psnr_far": f"{figure['psnr']:.1f}",
    }


def refreshed(text: str) -> str:
    """Return a page with every quoted table and value as the committed files have it."""
    known = values()
    text = VALUE.sub(lambda m: m[1] + known[m[2]] + m[3], text)

    def table(m: re.Match) -> str:
        made = TABLES[m[2]]() if m[2] in TABLES else (ROOT / m[2]).read_text()
        return f"{m[1]}{made.strip()}\n{m[3]}"

    return TABLE.sub(table, text)


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(refreshed(page.read_text()))
