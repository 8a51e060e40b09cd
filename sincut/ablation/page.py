"""What an ablation shows: its trials and how they stand, tables, a sheet of pictures, a page.

Nothing here trains or writes; :mod:`sincut.ablation.ablate` does.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from sincut.ablation.kinds import kind_of
from sincut.ablation.trials import AblationPlan, Outcome, shown
from sincut.errors import SincutError
from sincut.images.reading.pillow import decode_picture
from sincut.images.reading.source import Pixels
from sincut.pages import markdown
from sincut.pages.heat_maps import wrapped
from sincut.pages.shell import curves_library, curves_style, document, table
from sincut.pages.viewer import escaped as text
from sincut.runs.curves import BETTER, charts
from sincut.runs.folder import CONFIG_FILE, read_run
from sincut.runs.report_page import FIGURES

RESULT_FILE = "result.png"
THUMBNAIL_FILE = "thumbnail.png"
SHEET_FILE = "sheet.png"

# What figures are called, and what they measure.
_ABOUT = {
    **{name: (f"{name} {'↑' if better > 0 else '↓'}", "") for name, better in BETTER.items()},
    **FIGURES,
    "KID_lite": ("KID_lite ↓", "distance of the translations, as a set, to the style's images"),
    "KID_lite_crops": ("KID_lite_crops ↓", "the same of the square in each image's middle"),
}
_SPREAD = "The spread is the standard deviation over the finished seeds (n − 1)."
_READING = f"↓ lower is better, ↑ higher is. No one of them says enough alone. {_SPREAD}"

MARGIN = 12
_NARROWEST = 200  # of a column: labels need room
_FONT_SIZE, _LINE = 16, 21
_INK, _GREY = (28, 28, 28), (225, 225, 225)

# The curves that are drawn, from the log of every trial: name, what it is.
_CURVES = (
    ("G_gan", "G_gan, adversarial loss of G"),
    ("D_gan", "D_gan, adversarial loss of D"),
    ("NCE_x", "NCE_x, PatchNCE of the content"),
    *((name, ", ".join(_ABOUT[name])) for name in ("S1", "S3", "C1", "KID_lite")),
)
_SERIES = 6  # in one chart: more are hard to tell apart; but two settings at least


@dataclass(frozen=True)
class Average:
    """A setting over its seeds: ``finished`` of ``seeds`` trials have figures.

    ``mean`` is absent where none has, ``spread`` (standard deviation, n − 1) below two.
    """

    setting: str
    seeds: int
    finished: int
    mean: Mapping[str, float] | None
    spread: Mapping[str, float] | None


def averages(outcomes: Sequence[Outcome]) -> list[Average]:
    """Mean and spread per setting, in the order of the plan."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.trial.setting, []).append(outcome)
    found = []
    for setting, members in groups.items():
        finished = [it.figures for it in members if it.figures is not None]
        count = len(finished)
        # What one of them was not measured by, such as the distance of a judge, has no mean.
        columns = {
            name: [figures[name] for figures in finished]
            for name in figure_names(members)
            if all(name in figures for figures in finished)
        }
        mean = {name: fmean(values) for name, values in columns.items()} if count else None
        spread = {name: stdev(values) for name, values in columns.items()} if count > 1 else None
        found.append(Average(setting, len(members), count, mean, spread))
    return found


def figure_names(outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """Of all figures that any of the trials has, in order."""
    found = dict.fromkeys(kind_of(outcomes[0].trial.config).figures)
    for it in outcomes:
        found.update(dict.fromkeys(it.figures or ()))
    return tuple(found)


def csv_table(plan: AblationPlan, outcomes: Sequence[Outcome]) -> str:
    """The table for programs, figures with all their digits.

    ``row`` is ``trial`` for a trial, ``mean`` and ``spread`` for a setting over its seeds.
    """
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    names = figure_names(outcomes)
    heads = [_ABOUT[name][0].split()[0] for name in names]  # without the arrows
    writer.writerow(["row", "setting", "seed", *plan.fields, *heads, "status", "folder", "message"])
    of_setting = {}
    for it in outcomes:
        fields = [shown(getattr(it.trial.config, name)) for name in plan.fields]
        of_setting[it.trial.setting] = fields
        figures = [(it.figures or {}).get(name, "") for name in names]
        writer.writerow(
            [
                *("trial", it.trial.setting, it.trial.seed, *fields, *figures),
                *(it.status, it.trial.folder, it.failure or ""),
            ]
        )
    for average in averages(outcomes):
        status = f"{average.finished} of {average.seeds} finished"
        for row, figures_or_none in (("mean", average.mean), ("spread", average.spread)):
            if figures_or_none is not None:
                fields = of_setting[average.setting]
                figures = [figures_or_none.get(name, "") for name in names]
                writer.writerow([row, average.setting, "", *fields, *figures, status, "", ""])
    return file.getvalue()


def markdown_tables(plan: AblationPlan, outcomes: Sequence[Outcome]) -> str:
    """The tables for people: settings over their seeds, then every trial."""
    parts = [
        f"# {plan.title(markdown.plain)}",
        markdown.table(*_plain_cells(*_settings(outcomes)), aligned=True),
        "\n".join(f"- {head}: {meaning}" for head, meaning in _about(outcomes)),
        _READING,
        markdown.table(*_plain_cells(*trials_table(outcomes)), aligned=True),
    ]
    if plan.paper:
        parts.insert(1, plan.kind.paper.notes)
    return "\n\n".join(parts) + "\n"


def settings_table(outcomes: Sequence[Outcome]) -> str:
    """Mean ± spread of every setting as a table for a terminal."""
    return markdown.table(*_settings(outcomes), aligned=True)


def trials_table(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[str]]]:
    """Head and rows of what every trial reached, three digits."""
    rows = []
    names = figure_names(outcomes)
    for it in outcomes:
        figures = it.figures or {}
        values = [f"{figures[name]:.3f}" if name in figures else "–" for name in names]
        status = it.status if it.failure is None else f"failed: {it.failure}"
        rows.append([it.trial.setting, str(it.trial.seed), *values, status])
    return ["setting", "seed", *(head for head, _ in _about(outcomes)), "status"], rows


def sheet(
    leading: Sequence[tuple[str, Pixels]], plan: AblationPlan, outcomes: Sequence[Outcome]
) -> tuple[Pixels, list[tuple[int, int]]]:
    """All pictures on one: those that stand first, then the results, labelled.

    With several seeds a setting has a row and a seed a column. Nothing is enlarged. Of results
    their thumbnails are read; a grey cell stands where there is none.

    Args:
        leading: labels and pictures, such as content and style, (H, W, 3) uint8 sRGB.

    Returns:
        (H, W, 3) uint8, and where each picture's left top pixel is, as (left, top), in order.
    """
    cell = plan.kind.cell
    pictures = [(label, thumbnail(picture, cell)) for label, picture in leading]
    empty = np.full(pictures[0][1].shape, _GREY, np.uint8)
    for it in outcomes:
        picture, missing = empty, it.status
        if it.figures is not None:
            try:
                picture, missing = decode_picture(it.folder / THUMBNAIL_FILE).rgb, ""
                picture = thumbnail(picture, cell)
            except SincutError:  # removed or damaged: the others are shown
                missing = "no picture"
        pictures.append((f"{it.trial.name}: {missing}" if missing else it.trial.name, picture))
    seeds, before = len({trial.seed for trial in plan.trials}), len(leading)
    columns = max(seeds, before) if seeds > 1 else min(plan.kind.columns, len(pictures))
    # With several seeds the first pictures have a row of their own, and so has every setting.
    places = [
        divmod(index, columns)
        if seeds == 1 or index < before
        else (1 + (index - before) // seeds, (index - before) % seeds)
        for index in range(len(pictures))
    ]
    font = ImageFont.load_default(_FONT_SIZE)
    width = max(_NARROWEST, *(picture.shape[1] for _, picture in pictures))
    height = max(picture.shape[0] for _, picture in pictures)
    labels = [wrapped(label, font, width) for label, _ in pictures]
    above = _LINE * max(map(len, labels)) + 4

    step_across, step_down = width + MARGIN, above + height + MARGIN
    rows = 1 + max(row for row, _ in places)
    image = Image.new("RGB", (MARGIN + columns * step_across, MARGIN + rows * step_down), "white")
    draw = ImageDraw.Draw(image)
    corners = []
    for (row, column), lines, (_, picture) in zip(places, labels, pictures, strict=True):
        left, top = MARGIN + column * step_across, MARGIN + row * step_down
        # A short label stands just above its picture.
        first = top + above - 4 - _LINE * len(lines)
        for number, line in enumerate(lines):
            draw.text((left, first + number * _LINE), line, fill=_INK, font=font)
        image.paste(Image.fromarray(picture), (left, top + above))
        corners.append((left, top + above))
    return np.asarray(image), corners


def thumbnail(picture: Pixels, cell: int) -> Pixels:
    """An (H, W, 3) uint8 picture as the sheet has it: its sides at most ``cell`` pixels."""
    small = Image.fromarray(picture)
    small.thumbnail((cell, cell), Image.Resampling.LANCZOS)
    return np.asarray(small)


def page(plan: AblationPlan, outcomes: Sequence[Outcome]) -> str:
    """The page beside the sheet: tables, pictures and curves of what there is so far."""
    finished = sum(it.status == "finished" for it in outcomes)
    failed = sum(it.status == "failed" for it in outcomes)
    state = f"{finished} of {len(outcomes)} trials are finished"
    state += f", {failed} failed." if failed else "."
    title = plan.title()
    head, rows = _settings(outcomes)
    found = curves(plan, outcomes)
    body = [
        f"<h1>{text(title)}</h1>",
        f"<p>{text(state)}</p>",
        f"<p>{text(plan.kind.paper.notes)}</p>" if plan.paper else "",
        "<h2>Settings</h2>",
        table(head, rows, caption="Mean ± spread over the finished seeds."),
        "<dl>",
        *(f"<dt>{text(head)}</dt><dd>{text(about)}</dd>" for head, about in _about(outcomes)),
        "</dl>",
        f'<p class="soft">{text(_READING)}</p>',
        "<h2>Pictures</h2>",
        f'<p class="soft">Reduced; {plan.kind.pictures}.</p>',
        f'<img src="{SHEET_FILE}" alt="Content, style and the result of every trial, labelled">',
        "<h2>Trials</h2>",
        table(*trials_table(outcomes)),
        "<h2>Curves</h2>" if found else "",
        '<div class="curves" id="curves"></div>' if found else "",
    ]
    call = (
        'sincutCurves(document.getElementById("curves"), '
        'JSON.parse(document.getElementById("charts").textContent));'
    )
    return document(
        title,
        "\n".join(part for part in body if part),
        styles=[curves_style()] if found else [],
        scripts=[curves_library(), call] if found else [],
        data={"charts": found} if found else {},
        files=True,
    )


def curves(plan: AblationPlan, outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Charts for ``sincutCurves`` that show the settings in the same axes, a series per trial.

    A setting has one colour in a chart and a seed one dash; of a single seed every second setting
    is dashed.
    """
    logs: dict[str, dict[str, Any]] = {}
    for it in outcomes:
        known = {}
        if (it.folder / CONFIG_FILE).exists():
            try:
                run = read_run(it.folder)
            except SincutError:  # a folder that is just being made, or damaged: nothing to draw
                continue
            known = {each["name"]: each for chart in charts(run) for each in chart["series"]}
        logs[it.trial.folder] = known
    found = []
    seeds = sorted({trial.seed for trial in plan.trials})
    for title, settings in _groups(plan):
        members = []
        for trial in plan.trials:
            if trial.setting in settings:
                colour = settings.index(trial.setting)
                dash = seeds.index(trial.seed) if len(seeds) > 1 else colour % 2
                members.append((trial, {"name": trial.name, "colour": colour, "dash": dash}))
        for name, about in _CURVES:
            series = [
                {**logs[trial.folder][name], **look}
                for trial, look in members
                if name in logs.get(trial.folder, {})
            ]
            if series:
                found.append({"title": f"{title}: {about}", "series": series})
    return found


def _groups(plan: AblationPlan) -> list[tuple[str, tuple[str, ...]]]:
    """Titles, and the settings that are drawn together."""
    if plan.paper:
        return list(plan.kind.paper.groups)
    settings = list(dict.fromkeys(trial.setting for trial in plan.trials))
    seeds = len(plan.trials) // len(settings)
    size = max(_SERIES // seeds, 2)
    parts = [tuple(settings[start : start + size]) for start in range(0, len(settings), size)]
    if len(parts) == 1:
        return [("All settings", parts[0])]
    return [(part[0] if len(part) == 1 else f"{part[0]} to {part[-1]}", part) for part in parts]


def _settings(outcomes: Sequence[Outcome]) -> tuple[list[str], list[list[str]]]:
    rows = []
    for average in averages(outcomes):
        mean, spread = average.mean or {}, average.spread or {}
        cells = []
        for name in figure_names(outcomes):
            values = [each[name] for each in (mean, spread) if name in each]
            cells.append(" ± ".join(f"{value:.3f}" for value in values) or "–")
        rows.append([average.setting, f"{average.finished} of {average.seeds}", *cells])
    return ["setting", "seeds", *(head for head, _ in _about(outcomes))], rows


def _about(outcomes: Sequence[Outcome]) -> list[tuple[str, str]]:
    """Head and meaning of every figure."""
    return [_ABOUT[name] for name in figure_names(outcomes)]


def _plain_cells(
    head: Sequence[str], rows: Sequence[Sequence[str]]
) -> tuple[Sequence[str], list[list[str]]]:
    """A table whose texts stand for themselves in Markdown, messages of errors among them."""
    return head, [[markdown.plain(cell) for cell in row] for row in rows]
