"""Fields, presets, methods, and the exact words of what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from sincut.config.presets import PRESETS, parse_assignments, train_config
from sincut.config.training import PairConfig
from sincut.config.translating import TranslateConfig
from sincut.errors import SincutError


def message(function: object, *args: object, **kwargs: object) -> str:
    with pytest.raises(SincutError) as caught:
        function(*args, **kwargs)  # type: ignore[operator]
    return str(caught.value)


def test_paper_is_the_defaults() -> None:
    assert train_config("paper") == PairConfig()
    config = train_config("paper")
    assert (config.crop, config.tile, config.batch, config.channels) == (128, 64, 16, 40)
    assert (config.patches, config.steps, config.layers) == (256, 100_000, (0, 2, 4))
    assert (config.zoom, config.zoom_min, config.zoom_max) == ("width", 384, 1024)


def test_published_is_the_authors_code() -> None:
    config = train_config("published")
    assert (config.crop, config.tile, config.channels, config.patches) == (64, 64, 80, 1)
    assert (config.zoom_axes, config.zoom_per, config.placement) == ("independent", "crop", "grid")
    assert (config.steps, config.schedule, config.ema_half_life) == (100_000, "staircase", 0)
    assert config.lambda_r1 == config.r1_every == config.lambda_identity == config.lambda_gan == 1


def test_methods_change_what_they_change_and_nothing_else() -> None:
    base = train_config("paper").to_dict()
    changed = {
        method: {
            name: value
            for name, value in train_config("paper", method).to_dict().items()
            if base[name] != value
        }
        for method in ("sincut", "cut", "fastcut")
    }
    assert changed == {
        "sincut": {},
        "cut": {"method": "cut", "lambda_x": 1, "lambda_y": 1, "lambda_identity": 0},
        "fastcut": {
            "method": "fastcut",
            "lambda_x": 10,
            "lambda_y": 0,
            "lambda_identity": 0,
            "flip_equivariance": True,
        },
    }


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_valid_and_survive_json(preset: str) -> None:
    config = train_config(preset, seed=3)
    assert PairConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_what_is_given_wins_over_method_and_preset() -> None:
    config = train_config("draft", "fastcut", lambda_x="2.5", channels=24)
    assert (config.lambda_x, config.channels, config.flip_equivariance) == (2.5, 24, True)
    assert (config.preset, config.method) == ("draft", "fastcut")


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("temperature=0.1", 0.1),
        ("patches=12", 12),
        ("layers=0,2", (0, 2)),
        ("flip_equivariance=true", True),
        ("flip_equivariance=false", False),
        ("negatives=crop", "crop"),
    ],
)
def test_set_reads_every_kind_of_field(assignment: str, value: object) -> None:
    config = train_config("paper", **parse_assignments((assignment,)))  # type: ignore[arg-type]
    assert getattr(config, assignment.partition("=")[0]) == value


def test_configurations_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        PairConfig().steps = 3  # type: ignore[misc]


@pytest.mark.parametrize("config", [PairConfig, TranslateConfig])
def test_every_field_has_a_meaning(config: type) -> None:
    for field in dataclasses.fields(config):
        assert len(field.metadata["help"]) > 5


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"temperature": -1}, "temperature must be from 0.001 to 100, got -1.0; "
         "try --set temperature=0.07"),
        ({"temperature": "nan"}, "temperature must be from 0.001 to 100, got nan; "
         "try --set temperature=0.07"),
        ({"steps": 0}, "steps must be at least 1, got 0; try --steps 100000"),
        ({"steps": "many"}, "steps must be a whole number, got many; try --steps 100000"),
        ({"steps": 1.5}, "steps must be a whole number, got 1.5; try --steps 100000"),
        ({"batch": True}, "batch must be a whole number, got True; try --set batch=16"),
        ({"learning_rate": "x"}, "learning_rate must be a number, got x; "
         "try --set learning_rate=0.002"),
        ({"flip_equivariance": "yes"}, "flip_equivariance must be true or false, got yes; "
         "try --set flip_equivariance=false"),
        ({"layers": "0,b"}, "layers must be whole numbers separated by commas, got 0,b; "
         "try --set layers=0,2,4"),
        ({"zoom": "sideways"}, "zoom must be one of width, factor, got sideways; "
         "try --set zoom=width"),
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda, got tpu; try --device auto"),
        ({"tile": 48}, "tile must be a power of two from 8 to 1024, got 48; try --set tile=64"),
        ({"crop": 100}, "crop must be a multiple of tile (64) and of 2^downsamplings (2), "
         "got 100; try --set crop=128"),
        ({"blocks": 5}, "blocks must be even, got 5; try --set blocks=6"),
        ({"layers": "4,2"}, "layers must be different encoder layers in rising order, got 4,2; "
         "try --set layers=0,2,4"),
        ({"layers": "0,6"}, "layers must be between 0 and 5 (the encoder's last), got 0,6; "
         "try --set layers=0,2,4"),
        ({"zoom_min": 2000}, "zoom_min must not be above zoom_max, got 2000 and 1024; "
         "try --set zoom_min=1024"),
        ({"zoom": "factor"}, "zoom_max must be at most 1 where zoom=factor, got 1024; "
         "try --set zoom_min=0.333 --set zoom_max=1"),
        ({"patches": 1, "negatives": "crop"}, "PatchNCE needs negatives, got patches=1 with "
         "negatives=crop and batch=16; try --set patches=256"),
        ({"downsamplings": 4, "crop": 16, "tile": 16, "layers": "0,5", "negatives": "crop"},
         "PatchNCE needs negatives, and layer 5 has a single place in a crop of 16 pixels; "
         "try --set crop=32"),
        ({"channels": 100_000}, "channels must be from 1 to 1024, got 100000; "
         "try --set channels=40"),
        ({"lambda_gan": 0, "lambda_x": 0, "lambda_y": 0, "lambda_identity": 0},
         "at least one of lambda_gan, lambda_x, lambda_y, lambda_identity, "
         "lambda_painting, lambda_strokes must be above 0, got 0 for all; try --set lambda_x=4"),
    ],
)  # fmt: skip
def test_values_out_of_range(changes: dict[str, object], expected: str) -> None:
    assert message(train_config, "paper", **changes) == expected


def test_unknown_names() -> None:
    assert message(train_config, "quick") == (
        "preset must be one of paper, published, draft, fast, got quick; try --preset draft"
    )
    assert message(train_config, "paper", "gan") == (
        "method must be one of sincut, cut, fastcut, got gan; try --method sincut"
    )
    unknown = message(parse_assignments, ("temprature=1",))
    assert unknown.startswith("there is no field temprature in the configuration; allowed: bands, ")
    assert "temperature" in unknown
    assert message(TranslateConfig().replaced, tiles=3).startswith("there is no field tiles")
    assert message(parse_assignments, ("temperature",)) == (
        "--set must be name=value, got temperature; try --set temperature=0.07"
    )
    assert message(parse_assignments, ("preset=paper",)) == (
        "preset is not set with --set; try --preset paper"
    )


def test_translate_config() -> None:
    assert TranslateConfig(tile="300").tile_pixels(1) == 300
    assert TranslateConfig(tile="auto").tile_pixels(7) == 7
    assert TranslateConfig(tile="whole").tile_pixels(7, whole=9) == 9
    for tile in ("15", "-3", "big", "2.5", "²"):
        assert message(TranslateConfig, tile=tile) == (
            f"tile must be a number of pixels from 16, auto or whole, got {tile}; try --tile 512"
        )
    assert message(TranslateConfig, border="mirror") == (
        "border must be one of reflect, zero, got mirror; try --border reflect"
    )
    assert message(TranslateConfig, max_pixels=0) == (
        "max_pixels must be at least 1, got 0; try --max-pixels 20000000000"
    )
    assert message(TranslateConfig, max_memory="lots") == (
        "max_memory must be an amount such as 1GB or auto, got lots; try --max-memory 1GB"
    )
    assert TranslateConfig(max_memory="1.5GB").memory_bytes(7) == 1_500_000_000
    assert TranslateConfig().memory_bytes(7) == 7
    assert message(TranslateConfig, working_width=700, verify=3) == (
        "verify compares tiles of the network at the image's own size, got --verify 3 with another "
        "size; try it without"
    )
    assert message(TranslateConfig, strength=1.5) == (
        "strength must be from 0 to 1, got 1.5; try --strength 1.0"
    )
    assert message(TranslateConfig, depth="12") == (
        "depth must be one of auto, 8, 16, float, got 12; try --depth auto"
    )


@pytest.mark.parametrize(("text", "value"), [("true", True), ("False", False), ("TRUE", True)])
def test_true_and_false_in_any_case(text: str, value: bool) -> None:
    assert train_config("paper", correction=text).correction is value
