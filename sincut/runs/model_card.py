"""The model card: ``README.md`` of a run folder, in the form that the Hugging Face Hub reads.

Everything in it is read from the run. A card that was changed by hand is never written over: its
last line holds the digest of what stands above it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from safetensors import SafetensorError, safe_open

from sincut.config.parts import learned_share
from sincut.config.training import PairConfig
from sincut.files import write_text
from sincut.pages import markdown
from sincut.runs.commands import extension, repeating_command, resuming_command, unusual_fields
from sincut.runs.folder import (
    BOARD,
    CARD_FILE,
    CONFIG_FILE,
    LIVE_PAGE,
    LOG_FILE,
    MASK_FILE,
    PREVIEWS,
    REPORT_FILE,
    RunFolder,
    RunImage,
    RunRecord,
    size_of,
    title_of,
)
from sincut.runs.report_page import FIGURES
from sincut.units import duration

_FRONT_MATTER = """\
---
library_name: sincut
pipeline_tag: image-to-image
tags:
- sincut
- image-to-image
- style-transfer
- unpaired-translation
{tag}
---
"""

_OF_A_PAIR = (
    "A generator that translates an image into the look of another, trained with sincut on one "
    "pair of images and nothing else. The method is SinCUT, the single-image form of *Contrastive "
    "Learning for Unpaired Image-to-Image Translation*."
)
_OF_FOLDERS = (
    "A generator that translates images of one kind into another, trained with sincut on two "
    "folders of images that do not belong together in pairs. The method is that of *Contrastive "
    "Learning for Unpaired Image-to-Image Translation*, CUT or FastCUT."
)
_LIMITS_OF_A_PAIR = (
    "- It knows two images. It suits the content it was trained on and images like it; on others "
    "nothing was measured.\n"
    "- What of the style lies where is learned from this pair alone: textures may appear where "
    "they make no sense."
)
_LIMITS_OF_FOLDERS = (
    "- It suits images like those it was trained on; on others nothing was measured.\n"
    "- It normalises over the whole image it is given: a part of an image, translated by itself, "
    "comes out a little different."
)

# Names as in the log; what D and G are is said above the table.
_LOSSES = {
    "warm": "L1 to the content with its colours transferred, in the warm start",
    "G": "all of G's loss",
    "G_gan": "adversarial term of G",
    "NCE_x": "PatchNCE between content and output: the structure that stays",
    "NCE_y": "PatchNCE between style and its own output",
    "identity": "mean absolute change of the style image",
    "D": "all of D's loss",
    "D_gan": "adversarial term of D",
    "R1": "penalty of D's gradient at real images",
    "painting": "difference of G(x) and the painting that G learns from",
    "strokes": "sliced distance of the patches of G(x) and of that painting",
}

_CITATION = """\
@inproceedings{park2020contrastive,
  author    = {Park, Taesung and Efros, Alexei A. and Zhang, Richard and Zhu, Jun-Yan},
  title     = {Contrastive Learning for Unpaired Image-to-Image Translation},
  booktitle = {European Conference on Computer Vision},
  year      = {2020}
}"""

_MARK = "<!-- Written by sincut train; once changed by hand it is left alone. sha256: {} -->\n"


def write_card(run: RunRecord) -> bool:
    """Write the run's card; false where one stands that is not as it was written, and stays.

    Raises:
        SincutError: it cannot be written.
    """
    path = run.folder / CARD_FILE
    if path.exists() and not is_own(path):
        return False
    card = model_card(run)
    write_text(path, card + _MARK.format(_digest(card)))
    return True


def is_own(path: Path) -> bool:
    """Whether a card is as :func:`write_card` wrote it."""
    try:
        card, mark, rest = path.read_text(encoding="utf-8").rpartition(_MARK.split("{", 1)[0])
    except (OSError, ValueError):
        return False
    return f"{mark}{rest}" == _MARK.format(_digest(card))


def model_card(run: RunRecord) -> str:
    """The card as Markdown with a YAML front matter.

    Args:
        run: as its folder has it; the model's own step is read from there where it is.
    """
    pair = isinstance(run.content, RunImage)
    parts = [
        _FRONT_MATTER.format(tag="- single-image" if pair else "- image-folders"),
        f"# {title_of(run, markdown.plain)}",
        _OF_A_PAIR if pair else _OF_FOLDERS,
        *_picture(run),
        "## The pair" if pair else "## The folders",
        markdown.table(
            ("", "file" if pair else "folder", "size", "SHA-256"),
            (
                _described("content: its structure stays", run.content),
                _described("style: gives the look", run.style),
            ),
        ),
        "## How to use it",
        "`model.safetensors` is all that it takes; opening it runs no code.",
        markdown.fence("sincut translate model.safetensors IMAGE.jpg -o result.png", "sh"),
        markdown.fence(
            "import sincut\n\n"
            'sincut.translate("model.safetensors", "IMAGE.jpg", "result.png")\n'
            'generator = sincut.load_generator("model.safetensors")  # a torch module\n'
            "# (N, 3, H, W) of about [-1, 1] → the same shape",
            "python",
        ),
        *_widths(run),
        "## Training",
        markdown.table(("", "value"), _facts(run)),
        *_commands(run),
        *_measures(run),
        "## Limits",
        f"{_LIMITS_OF_A_PAIR if pair else _LIMITS_OF_FOLDERS}\n"
        "- Neither losses nor figures say whether the result looks good: see the previews.",
        "## Licence",
        "None is stated here. The look and the previews come from the images: whoever holds the "
        "rights in them decides what may be done with this model. Who may say so adds "
        "`license:` to the front matter.",
        "## What this folder shows of the images",
        _disclosed(run) if pair else _disclosed_of_folders(run),
        "## Citation",
        markdown.fence(_CITATION, "bibtex"),
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n\n"


def _picture(run: RunRecord) -> list[str]:
    if not run.previews:
        return []
    step, path = run.previews[-1]
    about = f"The content after {step} steps"
    return [f"![{about}]({PREVIEWS}/{path.name})", f"*{about}, reduced.*"]


def _commands(run: RunRecord) -> Iterable[str]:
    differs = extension(run)
    if differs:
        yield f"The same settings again, but not the same training. {differs}"
    else:
        yield "The same training again; on one CPU with the same versions, to the same numbers:"
    yield markdown.fence(repeating_command(run), "sh")
    if _model_step(run) < run.config.steps:
        yield "To go on with this one, in the folder that holds the images and the run:"
        yield markdown.fence(resuming_command(run), "sh")


def _disclosed(run: RunRecord) -> str:
    """What to know before it is uploaded. The report is made after the card, or later by hand."""
    masks = "".join(
        f" `{MASK_FILE.format(role)}` holds the {role} itself, at most 1024 pixels a side."
        for role in ("content", "style")
        if (run.folder / MASK_FILE.format(role)).exists()
    )
    return (
        f"- `{REPORT_FILE}`, made when a training is finished, holds **both images themselves**: "
        "content, style and result as JPEG, at most 4096 pixels a side and smaller only where the "
        "file would pass 10 MB, and squares of 256 pixels of each, exact to the pixel. Nothing "
        f"else that sincut writes here holds them{' at this size' if masks else ''}.\n"
        f"- `{PREVIEWS}/` and, where it is, `{BOARD}/` hold the content translated, its longest "
        f"side at most {run.config.preview_width} pixels: what the content shows can be "
        f"recognised.{masks}\n"
        f"- `{CARD_FILE}`, `{CONFIG_FILE}`, `{REPORT_FILE}`, `model.safetensors` and "
        "`state.safetensors` hold the names of both image files, without their folders, their "
        "sizes and SHA-256 digests: whoever has such a file can tell that it was used. "
        f"`{LIVE_PAGE}` holds the names and sizes.\n"
        f"- `{CARD_FILE}`, `{LIVE_PAGE}` and `{REPORT_FILE}` hold the name of this folder, in the "
        f"commands. `{CARD_FILE}`, `{CONFIG_FILE}` and `{REPORT_FILE}` say on which processor and "
        "with which versions it was trained.\n"
        f"- `{LOG_FILE}`, `live.js` and the weights are numbers computed from the images. No file "
        "holds the places, dates or authors that image files may carry."
    )


def _disclosed_of_folders(run: RunRecord) -> str:
    """As above, of folders."""
    return (
        f"- `{REPORT_FILE}`, made when a training is finished, holds some of the **images "
        "themselves**, before and after, at most 512 pixels a side, and some of the style's.\n"
        f"- `{PREVIEWS}/` and, where it is, `{BOARD}/` hold some images before and after, each at "
        f"most {run.config.preview_width} pixels a side.\n"
        f"- `{CARD_FILE}`, `{CONFIG_FILE}`, `{REPORT_FILE}`, `{LIVE_PAGE}`, `model.safetensors` "
        "and `state.safetensors` hold the names of both folders and the number and sizes of their "
        f"images; `{REPORT_FILE}` also names of single files.\n"
        f"- `{LOG_FILE}`, `live.js` and the weights are numbers computed from the images."
    )


def _described(role: str, image: RunImage | RunFolder) -> tuple[str, str, str, str]:
    return role, markdown.plain(image.name), size_of(image), f"`{image.sha256}`"


def _widths(run: RunRecord) -> Iterable[str]:
    if not (isinstance(run.config, PairConfig) and isinstance(run.content, RunImage)):
        return
    width = round(run.content.width * learned_share(run.content.width, run.config))
    yield (
        f"It learned its textures on images up to {width} pixels wide. On a much larger image "
        f"they are small; `--working-width {width}` brings them back to the size they were learned "
        "at, and the image's own detail with them."
    )


def _facts(run: RunRecord) -> list[tuple[str, str]]:
    config = run.config
    step = _model_step(run)
    done = f"{config.steps}"
    if config.keeps_best:
        done += f", of which step {step} was best and is kept"
    elif step < config.steps:
        done = f"{step} of {config.steps}, interrupted"
    facts = [
        ("preset", config.preset),
        ("method", config.method),
        ("steps", done),
        ("warm start", f"{config.warm_steps} steps"),
        ("seed", f"{config.seed}"),
        ("device", config.device),
        ("precision", config.precision),
        ("time", f"{duration(run.seconds)} in logged steps"),
        *_made_with(run),
    ]
    said = ("preset", "method", "steps", "warm_steps", "seed", "device", "precision")
    flags = [
        config.flag(name, getattr(config, name))
        for name in unusual_fields(config)
        if name not in said
    ]
    differing = ", ".join(f"`{flag.removeprefix('--set ')}`" for flag in flags)
    facts.append(("other than the preset", differing or "nothing"))
    return [
        (markdown.plain(name), value if "`" in value else markdown.plain(value))
        for name, value in facts
    ]


def _made_with(run: RunRecord) -> Iterable[tuple[str, str]]:
    """Processor and versions by name; where a later session had others, one after the other."""
    environments = [session.environment for session in run.sessions]
    names = dict.fromkeys(name for each in environments for name in each)
    if "sincut" not in names:
        yield "sincut", run.version
    for name in names:
        values = [each.get(name, "none") for each in environments]
        yield name, ", then ".join(value for value, _ in groupby(values))


def _model_step(run: RunRecord) -> int:
    """The step of the model that is there: an interrupted one is seldom a step of the log."""
    try:
        with safe_open(run.folder / "model.safetensors", framework="np") as file:
            return int(json.loads((file.metadata() or {})["header"])["step"])
    except (OSError, SafetensorError, KeyError, ValueError):
        return run.step


def _measures(run: RunRecord) -> Iterable[str]:
    losses = run.series("losses")
    if losses:
        yield "## Last losses"
        yield (
            "Of crops, as logged; G is the generator, D the discriminator. They oscillate, and "
            "their height says little about the look."
        )
        yield markdown.table(
            ("loss", "value", "at step", "what it is"),
            [
                (f"`{name}`", f"{losses[name][1][-1]:.4g}", str(losses[name][0][-1]), meaning)
                for name, meaning in _LOSSES.items()
                if name in losses and (name != "warm" or len(losses) == 1)
            ],
        )
    logged = run.series("figures")
    if logged:
        figures = {name: values[-1] for name, (_, values) in logged.items()}
        (steps, _), *_ = logged.values()
        yield "## Figures"
        yield (
            "The content translated at its own size, compared with content and style, after step "
            f"{steps[-1]}."
        )
        rows = [
            (title, f"{figures[name]:.3f}", meaning)
            for name, (title, meaning) in FIGURES.items()
            if name in figures
        ]
        yield markdown.table(("figure", "value", "what it measures"), rows)


def _digest(card: str) -> str:
    return hashlib.sha256(card.encode()).hexdigest()
