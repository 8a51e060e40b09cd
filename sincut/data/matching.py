"""Style crops that D sees, chosen so that they show the same kinds of things as the content's.

The two images of a pair rarely have the same shares of sky, water and rock. A discriminator of
random crops sees that first of all, and G answers by turning sky into rock. So for every crop of
the content some of the style are drawn, and one beside the most like it is taken. Richter et al.
match crops for the same reason ("Enhancing photorealism enhancement", PAMI 2022), by the features
of a pretrained network; here what tells places apart is their colours, after the content's have
been transferred to the style's, and how much these vary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from sincut.config.training import PairConfig
from sincut.data.crops import ResidentImage, sample_boxes
from sincut.data.random_numbers import MATCHES, SHIFTS, RandomNumbers, below, chance

_CELL = 16  # pixels
# Crops of the style that are described before training, so that looking is cheap: as many as this,
# and as have so many pixels together, but a few at least.
_KNOWN, _PIXELS, _FEWEST = 2048, 2**25, 256
_AT_ONCE = 2**20  # pixels


def recoloured(image: Tensor, table: Tensor) -> Tensor:
    """(N, 3, H, W) in [-1, 1] through a colour table (S, S, S, 3) in [0, 1], trilinear."""
    lattice = table.permute(3, 0, 1, 2)[None] * 2 - 1  # (1, 3, red, green, blue)
    where = image.clamp(-1, 1).flip(1).permute(0, 2, 3, 1)[None]  # blue, green, red as x, y, z
    return F.grid_sample(lattice, where, align_corners=True)[0].transpose(0, 1)


class Matcher:
    """Chooses crops of the style for crops of the content.

    Args:
        style: the image they are cut from.
        table: of :func:`sincut.data.colour_transfer.transfer_table`, on the device of the image.
        config: its crops, and how many ``candidates`` are looked at for each.
    """

    def __init__(self, style: ResidentImage, table: Tensor, config: PairConfig) -> None:
        self.table, self.candidates = table, config.candidates
        self.crop, self.mirror = config.crop, config.mirror
        area = config.crop**2
        count = min(_KNOWN, max(_FEWEST, _PIXELS // area))
        self.known = sample_boxes(style, config, count)
        parts = torch.split(self.known, max(1, _AT_ONCE // area))
        found = torch.cat([descriptors(style.crops(part, config.crop)) for part in parts])
        # A difference of a hundredth of the range is none.
        self.scale = 1 / (found.std(dim=0) + 0.02)
        self.found = found * self.scale

    def boxes(self, x: Tensor, draws: RandomNumbers) -> Tensor:
        """Where the style is like each of ``x`` (N, 3, S, S); (N, 5) as ``draw_boxes``'s."""
        words = draws.of_samples(len(x), MATCHES, each=self.candidates)
        places = below(words, len(self.known)).view(len(x), self.candidates)
        wanted = descriptors(recoloured(x, self.table)) * self.scale
        distance = (self.found[places] - wanted[:, None]).square().sum(dim=2)
        best = distance.argmin(dim=1, keepdim=True)
        return self._varied(self.known[places.gather(1, best)[:, 0]], draws)

    def _varied(self, boxes: Tensor, draws: RandomNumbers) -> Tensor:
        """Crops near by, mirrored or not: the best of the known ones come often, and D would learn
        them by heart."""
        count = len(boxes)
        words = draws.words(draws.parts * count, SHIFTS)[:, draws.own(count)].T
        reach = self.crop // 4
        low = (boxes[:, 2:4] - reach).clamp_min(0)
        high = (boxes[:, 2:4] + reach).minimum(boxes[:, :2] - self.crop)
        places = low + below(words[:, :2], high - low + 1)
        return torch.cat([boxes[:, :2], places, chance(words[:, 2:3], self.mirror)], dim=1)


def descriptors(crops: Tensor) -> Tensor:
    """(N, 6): mean colour, and how much it varies from cell to cell.

    Not within cells: how lively a texture is, the style has to say. What is left over beyond whole
    cells at the right and at the bottom is not looked at.
    """
    means = F.avg_pool2d(crops, _CELL).flatten(2)
    return torch.cat([means.mean(dim=2), means.std(dim=2, correction=0)], dim=1)
