"""Writes an inspection as one self-contained HTML file."""

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np

from experiments.data.inspection.findings import Example, Finding, Inspection, size_summary, spread_of
from experiments.data.inspection.thumbnails import thumbnail
from experiments.errors import pluralized

_SHOWN = 8  # pictures of a finding
_LISTED = 200  # lines of a finding
_OPEN = 4  # up to this number of lines, the list of a finding is expanded
_BINS = 24


def write_page(path: Path, inspection: Inspection, samples: int) -> None:
    """Writes the page to `path`, with `samples` pictures of each class."""
    html = resources.files("experiments.data.inspection").joinpath("page.html").read_text(encoding="utf-8")
    train = inspection.specs["train"]
    total = sum(spec.num_examples for spec in inspection.specs.values())
    page = Template(html).substitute(
        source=escape(train.source),
        summary=f"{pluralized(total, 'example')} of {pluralized(train.num_classes, 'class')}",
        inputs=escape(f"{' x '.join(map(str, train.input_shape))} {train.input_dtype}"),
        digests="".join(
            f"<dt>digest of {escape(name)}</dt><dd><code>{spec.digest}</code></dd>"
            for name, spec in inspection.specs.items()
        ),
        verdict=_verdict(inspection.findings),
        counts=_counts(inspection),
        sizes=_sizes(inspection.sizes),
        findings="".join(_finding(finding, inspection) for finding in inspection.findings) or "<p>None.</p>",
        samples="".join(
            f"<h3>{escape(name)}</h3>{_pictures(spread_of(inspection.examples['train'], label, samples), inspection)}"
            for label, name in enumerate(train.class_names)
        ),
    )
    path.write_text(page, encoding="utf-8")


def _verdict(findings: Sequence[Finding]) -> str:
    if not findings:
        return '<p class="verdict good">Nothing odd was found.</p>'
    pills = (
        f'<a class="pill {_kind(finding)}" href="#{_anchor(finding)}">'
        f"{escape(finding.title)} <b>{len(finding.details):,}</b></a>"
        for finding in findings
    )
    return f'<p class="verdict">{"".join(pills)}</p>'


def _counts(inspection: Inspection) -> str:
    specs = inspection.specs
    most = max(max(spec.class_counts) for spec in specs.values())
    head = "".join(f"<th>{escape(name)}</th>" for name in specs)
    rows = [
        f"<tr><th>{escape(name)}</th>{''.join(_bar(spec.class_counts[at], most) for spec in specs.values())}</tr>"
        for at, name in enumerate(specs["train"].class_names)
    ]
    total = "".join(f"<td class='total'>{spec.num_examples:,}</td>" for spec in specs.values())
    return f"<table><tr><th>class</th>{head}</tr>{''.join(rows)}<tr><th>all</th>{total}</tr></table>"


def _bar(count: int, most: int) -> str:
    return f'<td><i style="width:{100 * count / max(most, 1):.1f}%"></i><span>{count:,}</span></td>'


def _sizes(sizes: Sequence[tuple[int, int]]) -> str:
    if not sizes:
        return "<p>The inputs are not images.</p>"
    charts = ""
    if len(set(sizes)) > 1:
        widths, heights = np.array(sizes).T
        charts = f'<div class="charts">{_histogram("width", widths)}{_histogram("height", heights)}</div>'
    return f"<p>{escape(size_summary(sizes))}.</p>{charts}"


def _histogram(title: str, values: np.ndarray) -> str:
    counts, edges = np.histogram(values, bins=_BINS)
    tall = 96 * counts / counts.max()
    bars = "".join(
        f'<rect x="{10 * at}" y="{100 - tall[at]:.1f}" width="9" height="{tall[at]:.1f}">'
        f"<title>{edges[at]:.0f} to {edges[at + 1]:.0f}: {count:,}</title></rect>"
        for at, count in enumerate(counts)
    )
    scale = f"<span>{edges[0]:.0f}</span><span>{title} in pixels</span><span>{edges[-1]:.0f}</span>"
    svg = f'<svg viewBox="0 0 {10 * _BINS} 100" preserveAspectRatio="none" role="img">{bars}</svg>'
    return f"<figure>{svg}<figcaption>{scale}</figcaption></figure>"


def _finding(finding: Finding, inspection: Inspection) -> str:
    lines = "".join(f"<li>{escape(detail)}</li>" for detail in finding.details[:_LISTED])
    rest = len(finding.details) - _LISTED
    is_open = " open" if len(finding.details) <= _OPEN else ""
    more = f"<li>and {rest:,} more</li>" if rest > 0 else ""
    return (
        f'<section class="finding {_kind(finding)}" id="{_anchor(finding)}">'
        f"<h3>{escape(finding.title)} <b>{len(finding.details):,}</b></h3><p>{escape(finding.meaning)}</p>"
        f"{_pictures(finding.examples[:_SHOWN], inspection)}"
        f"<details{is_open}><summary>list</summary><ul>{lines}{more}</ul></details></section>"
    )


def _pictures(examples: Iterable[Example], inspection: Inspection) -> str:
    return f'<div class="pictures">{"".join(_picture(example, inspection) for example in examples)}</div>'


def _picture(example: Example, inspection: Inspection) -> str:
    jpeg = thumbnail(inspection.sources[example.split], example.position)
    name = escape(example.name)
    shown = '<span class="none">no picture</span>'
    if jpeg is not None:
        shown = f'<img src="data:image/jpeg;base64,{b64encode(jpeg).decode()}" alt="{name}">'
    return f'<figure title="{name}">{shown}<figcaption>{name}</figcaption></figure>'


def _kind(finding: Finding) -> str:
    return "wrong" if finding.wrong else "note"


def _anchor(finding: Finding) -> str:
    return finding.title.lower().replace(" ", "-")
