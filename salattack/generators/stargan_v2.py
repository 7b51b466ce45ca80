"""StarGAN v2 (Choi et al., CVPR 2020): generator, mapping network and style encoder, any width.

Names and sizes are those of the authors' code, clovaai/stargan-v2.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Size, Tensor, nn

from ..edits import EditSet
from ..errors import SalattackError
from .editor import Editor, ImageConv2d, InstanceNorm2d, shortcut, unwrapped

PARTS = ("generator", "mapping_network", "style_encoder")
DOMAINS = ("Female", "Male")  # of the CelebA-HQ networks, in their order
IDENTITY, HALVE, DOUBLE = nn.Identity(), nn.AvgPool2d(2), nn.Upsample(scale_factor=2)
UNIT = 2**-0.5  # of the sum of two branches, so that it keeps their variance


class _AdaIN(nn.Module):
    """Instance normalisation whose scale and shift the style gives."""

    def __init__(self, style_dim: int, channels: int) -> None:
        super().__init__()
        self.fc = nn.Linear(style_dim, 2 * channels)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, shift = self.fc(style)[:, :, None, None].chunk(2, dim=1)
        return (1 + scale) * F.instance_norm(x) + shift


class _StyledBlock(nn.Module):
    """A block of the encoders, which halves the sides after, or of the decoder, doubling before.

    ``widths`` are its input's, the first and the second convolution's channels.
    """

    def __init__(
        self,
        widths: tuple[int, int, int],
        norm: Callable[[int], nn.Module],
        before: nn.Module = IDENTITY,
        after: nn.Module = IDENTITY,
        residual: bool = True,  # unless high passes carry the photo's details
    ) -> None:
        super().__init__()
        a, middle, b = widths
        self.conv1, self.conv2 = nn.Conv2d(a, middle, 3, 1, 1), nn.Conv2d(middle, b, 3, 1, 1)
        self.norm1, self.norm2, self.conv1x1 = norm(a), norm(middle), shortcut(a, b)
        self.before, self.after, self.residual = before, after, residual

    def forward(self, x: Tensor, *style: Tensor) -> Tensor:
        y = self.conv1(self.before(F.leaky_relu(self.norm1(x, *style), 0.2)))
        y = self.conv2(F.leaky_relu(self.norm2(self.after(y), *style), 0.2))
        return UNIT * (y + self.after(self.conv1x1(self.before(x)))) if self.residual else y


class _Generator(nn.Module):
    def __init__(self, widths: Sequence[int], style_dim: int, high_pass: bool) -> None:
        super().__init__()
        first, last = widths[0], widths[-1]
        self.from_rgb = ImageConv2d(3, first, 3, 1, 1)
        norm, styled = partial(InstanceNorm2d, affine=True), partial(_AdaIN, style_dim)
        down = [_StyledBlock((a, a, b), norm, after=HALVE) for a, b in pairwise(widths)]
        down += [_StyledBlock((last, last, last), norm) for _ in range(2)]
        self.encode = nn.ModuleList(down)
        how = {"norm": styled, "residual": not high_pass}
        up = [_StyledBlock((last, last, last), **how) for _ in range(2)]
        up += [_StyledBlock((a, b, b), before=DOUBLE, **how) for a, b in pairwise(reversed(widths))]
        self.decode = nn.ModuleList(up)
        self.to_rgb = nn.Sequential(norm(first), nn.LeakyReLU(0.2), nn.Conv2d(first, 3, 1))
        if high_pass:
            self.hpf = nn.Module()
            kernel = torch.full((3, 3), -1.0)
            kernel[1, 1] = 8.0
            self.hpf.register_buffer("filter", kernel)

    def forward(self, images: Tensor, style: Tensor, masks: Sequence[Tensor] | None) -> Tensor:
        x, details = self.from_rgb(images), {}
        for block in self.encode:
            details[x.shape[2]] = x
            x = block(x)
        for block in self.decode:
            x = block(x, style)
            side = x.shape[2]
            if masks is not None and side in (32, 64, 128):
                mask = F.interpolate(masks[side > 32], size=x.shape[-2:], mode="bilinear")
                kernel = self.hpf.filter.expand(x.shape[1], 1, 3, 3)
                x = x + F.conv2d(mask * details[side], kernel, padding=1, groups=x.shape[1])
        return self.to_rgb(x)


class _OfDomain(nn.Module):
    """A trunk and one head for each domain, of which each row takes its own."""

    def __init__(self, shared: nn.Module, heads: Sequence[nn.Module]) -> None:
        super().__init__()
        self.shared, self.unshared = shared, nn.ModuleList(heads)

    def forward(self, x: Tensor, domain: Tensor) -> Tensor:
        known = range(len(self.unshared))
        if domain.shape != x.shape[:1] or not all(one in known for one in domain.tolist()):
            numbers = f"a whole number from 0 to {known[-1]}, got {domain.tolist()}"
            raise SalattackError(f"give each of the {len(x)} a domain, {numbers}")
        shared = self.shared(x).flatten(1)
        codes = torch.stack([head(shared) for head in self.unshared], 1)
        return codes[torch.arange(len(x), device=x.device), domain.to(x.device).long()]


def _mlp(*widths: int) -> list[nn.Module]:
    return [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]


class StarGANv2(Editor):
    """StarGAN v2, as published for CelebA-HQ by default; a target is a style code."""

    asked = "style codes (see StarGANv2.style_of_latent and style_of_reference)"

    def __init__(
        self,
        width: int = 64,  # channels of the first layer
        max_width: int = 512,  # most channels of a layer
        image_size: int = 256,  # of training, a power of two
        style_dim: int = 64,  # length of a style code
        domains: int = 2,  # CelebA-HQ's female and male; 3 for AFHQ: cat, dog, wild
        latent_dim: int = 16,  # length of a latent code
        hidden: int = 512,  # width of the mapping network
        high_pass: bool = True,  # whether high passes carry details: CelebA-HQ's do, AFHQ's not
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.image_size, self.columns = image_size, style_dim
        halvings = image_size.bit_length() - 3  # down to 4×4
        widths = [min(width * 2**i, max_width) for i in range(halvings + 1)]
        depth = halvings - 2 + high_pass
        self.divisor = 2**depth
        self.generator = _Generator(widths[: depth + 1], style_dim, high_pass)
        heads = [
            nn.Sequential(*_mlp(*[hidden] * 4), nn.Linear(hidden, style_dim))
            for _ in range(domains)
        ]
        self.mapping_network = _OfDomain(nn.Sequential(*_mlp(latent_dim, *[hidden] * 4)), heads)
        trunk = [nn.Conv2d(3, width, 3, 1, 1)]
        trunk += [_StyledBlock((a, a, b), nn.Identity, after=HALVE) for a, b in pairwise(widths)]
        trunk += [nn.LeakyReLU(0.2), nn.Conv2d(widths[-1], widths[-1], 4), nn.LeakyReLU(0.2)]
        heads = [nn.Linear(widths[-1], style_dim) for _ in range(domains)]
        self.style_encoder = _OfDomain(nn.Sequential(*trunk), heads)

    def _edit(
        self, images: Tensor, target: Tensor, masks: Sequence[Tensor] | None = None
    ) -> Tensor:
        """Return the edit, clipped as in the authors' code.

        ``masks`` say where the CelebA-HQ model passes on the photo's details: two (N, 1, h, w) heat
        maps in [0, 1], for 32 px and for 64 and 128 px, of a landmark network (FAN) that this
        package does not have. Without them, as in the authors' code, nothing is passed on.
        """
        if masks is not None and not hasattr(self.generator, "hpf"):
            raise SalattackError("this StarGAN v2 has no high pass: leave out the masks")
        return self.generator(images, target, masks).clamp(-1, 1)

    def style_of_latent(self, latent: Tensor, domain: Tensor) -> Tensor:
        """Return (N, style_dim) style codes of (N, latent_dim) normal noise and N domains."""
        return self.mapping_network(latent, domain)

    def style_of_reference(self, images: Tensor, domain: Tensor) -> Tensor:
        """Return (N, style_dim) style codes of N images of that size in [-1, 1] and domains."""
        if images.shape[1:] != (3, self.image_size, self.image_size):
            size = f"{self.image_size}×{self.image_size}"
            raise SalattackError(f"reference images must be {size}, got {tuple(images.shape)}")
        return self.style_encoder(images, domain)

    @torch.no_grad()
    def _target(self, labels: Tensor, edit: str) -> Tensor:
        """Latent-guided: one style of that domain, the same for every face."""
        noise = torch.randn(1, self.latent_dim, generator=torch.Generator().manual_seed(0))
        domain = torch.full((len(labels),), DOMAINS.index(edit), device=labels.device)
        return self.style_of_latent(noise.to(labels).expand(len(labels), -1), domain)

    edits = EditSet(DOMAINS, _target)

    @classmethod
    def prepare(cls, state: Mapping) -> Mapping:
        """Return the three networks' parameters under their names, "generator." and so on.

        The landmark network and the discriminator that a file also holds make no picture.
        """
        parts = {part: state[part] for part in PARTS if isinstance(state.get(part), Mapping)}
        named = {f"{part}.{key}": v for part in parts for key, v in unwrapped(parts[part]).items()}
        return named or state

    @staticmethod
    def _sizes(shapes: Mapping[str, Size]) -> tuple:
        hidden, latent_dim = shapes["mapping_network.shared.0.weight"]
        style_dim, max_width = shapes["style_encoder.unshared.0.weight"]
        encoder = [key for key in shapes if key.startswith("style_encoder.")]
        image_size = 2 ** (2 + sum(key.endswith(".conv1.weight") for key in encoder))
        domains = sum(".unshared." in key and key.endswith(".weight") for key in encoder)
        width, high_pass = shapes["generator.from_rgb.weight"][0], "generator.hpf.filter" in shapes
        return width, max_width, image_size, style_dim, domains, latent_dim, hidden, high_pass
