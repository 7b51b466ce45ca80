"""The attackers once more, by the book: one image, one loop, no shared code with the package.

Written from Eq. 9 and 10 and Ruiz et al.'s description, with the generator's parameters taking part
in the graph and every blur a plain two-dimensional convolution.
"""

import math

import torch
from scipy.ndimage import gaussian_filter


def gaussian_window(size, sigma):
    rows = []
    for i in range(size):
        row = []
        for j in range(size):
            squared = (i - size // 2) ** 2 + (j - size // 2) ** 2
            row.append(math.exp(-squared / (2 * sigma**2)))
        rows.append(row)
    window = torch.tensor(rows)
    return window / window.sum()


def average_window(size):
    return torch.ones(size, size) / size**2


def blurred(image, window):
    size = window.shape[0]
    half = size // 2
    padded = torch.nn.functional.pad(image, (half, half, half, half), mode="reflect")
    channels = [
        torch.nn.functional.conv2d(padded[:, c : c + 1], window.to(image)[None, None])
        for c in range(3)
    ]
    return torch.cat(channels, 1)


FAMILY = [gaussian_window(11, s) for s in (1, 1.5, 2, 2.5, 3)]
FAMILY += [average_window(k) for k in (3, 5, 7, 9)]


def mean_squared(a, b):
    return ((a - b) ** 2).mean()


def ascend(g, image, target, start, windows_at, mask, bound, step, steps):
    clean = g(image, target).detach()
    x = torch.min(torch.max(start, image - bound), image + bound).clamp(-1, 1)
    for t in range(steps):
        x = x.clone().detach().requires_grad_(True)
        losses = []
        for window in windows_at(t):
            seen = x if window is None else blurred(x, window)
            losses.append(mean_squared(g(seen, target), clean))
        loss = sum(losses) / len(losses)
        loss.backward()
        x = x.detach() + step * x.grad.sign() * mask
        x = torch.min(torch.max(x, image - bound), image + bound).clamp(-1, 1)
    return x.detach()


def i_fgsm(g, image, target, start, mask, **strength):
    return ascend(g, image, target, start, lambda t: [None], torch.ones(1), **strength)


def spread_spectrum(g, image, target, start, mask, **strength):
    return ascend(
        g, image, target, image, lambda t: [FAMILY[t % len(FAMILY)]], torch.ones(1), **strength
    )


def eot_blur(g, image, target, start, mask, **strength):
    return ascend(g, image, target, image, lambda t: FAMILY, torch.ones(1), **strength)


def saliency_aware(g, image, target, start, mask, **strength):
    return ascend(g, image, target, image, lambda t: [gaussian_window(11, 1)], mask, **strength)


def l2_pgd(g, image, target, start, mask, bound, step, steps, radius):
    clean = g(image, target).detach()
    x = start.clamp(-1, 1)
    for _ in range(steps):
        x = x.clone().detach().requires_grad_(True)
        mean_squared(g(x, target), clean).backward()
        change = x.detach() + step * x.grad / (x.grad**2).mean().sqrt() - image
        size = (change**2).mean().sqrt()
        if size > radius:
            change = change * radius / size
        x = (image + change.clamp(-bound, bound)).clamp(-1, 1)
    return x.detach()


def saved(image):
    return ((image + 1) * 127.5).round().clamp(0, 255).float() / 127.5 - 1


def texture(image, mask):
    """SSIM's local variance by SciPy's Gaussian filter, 11 px wide, with mirrored borders."""

    def mean(values):
        return gaussian_filter(values, 1.5, truncate=3.4, mode="mirror", axes=(2, 3))

    pixels = image.double().numpy()
    variance = (mean(pixels**2) - mean(pixels) ** 2).clip(0).mean(1, keepdims=True)
    return mask**0.5 / torch.from_numpy(1 + 0.005 / (2 * variance + 0.06**2))


def minimum_norm(g, image, target, start, mask, step, steps, radius, shrink, until):
    clean = g(image, target).detach()
    change, best, smallest = start - image, None, math.inf
    for t in range(steps):
        x = saved(image + change).to(image).requires_grad_(True)
        damage = mean_squared(g(x, target), clean)
        damage.backward()
        left = (steps - t) / steps
        if damage > until and mean_squared(x, image) < smallest:
            smallest, best = mean_squared(x, image).item(), image + change
        most = left * shrink
        radius *= min(max((until / damage.item()) ** 0.4, 1 - most), 1 + most)
        direction = x.grad * mask
        change = change + left * step * direction / (direction**2).mean().sqrt()
        size = (change**2).mean().sqrt()
        if size > radius:
            change = change * radius / size
        change = (image + change).clamp(-1, 1) - image
    return best
