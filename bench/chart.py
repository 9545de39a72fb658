"""The chart in README.md: bars drawn by hand as SVG, for light and dark pages."""

from collections.abc import Mapping
from typing import Final
from xml.sax.saxutils import escape

from bench.servers import ADMISSIONS, BARE, HEARTBEATS, SERVERS, STREAMLIMIT
from bench.targets import Found
from bench.verdicts import Ratio, Summary, cpu_ratio

WIDTH: Final = 760
_LEFT, _RIGHT = 300, 70
_ROW, _HEAD, _GAP = 26, 46, 14
_STYLE: Final = """
  .card { fill: #ffffff; stroke: #d8dee4 }
  text { font: 13px -apple-system, "Segoe UI", Helvetica, Arial, sans-serif; fill: #1f2328 }
  .title { font-size: 15px; font-weight: 600 }
  .note { fill: #59636e }
  .bar { fill: #9aa7b4 }
  .bare { fill: #dde3e9 }
  .own { fill: #1a7f37 }
  .own-text { font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    .card { fill: #0d1117; stroke: #3d444d }
    text { fill: #f0f6fc }
    .note { fill: #9198a1 }
    .bar { fill: #656c76 }
    .bare { fill: #2f353d }
    .own { fill: #3fb950 }
  }
"""
_TITLES: Final = {HEARTBEATS: "Heartbeats that one core carries", ADMISSIONS: "Admissions that one core carries"}


def draw(found: Found, note: str) -> str:
    """Draw what a core would carry, by the CPU time of a request, over what it would of a bare ASGI application.

    Args:
        found: A panel for heartbeats, and one for admissions, as far as they were measured.
        note: One line below.
    """
    panels, top = [], _GAP
    for load, title in _TITLES.items():
        if summaries := found.loads.get(load):
            panel, height = _panel(title, summaries, top)
            panels.append(panel)
            top += height + _GAP
    height = top + 24
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        f'role="img" aria-label="What streamlimit and its peers do, over a bare ASGI application">\n'
        f"<style>{_STYLE}</style>\n"
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8"/>\n'
        f"{''.join(panels)}"
        f'<text class="note" x="20" y="{height - 16}">{escape(note)}. By CPU time. Paler: no store, no limit.</text>\n'
        "</svg>\n"
    )


def _panel(title: str, summaries: Mapping[str, Summary], top: int) -> tuple[str, int]:
    over = summaries.get(BARE.name)
    ratios = {name: cpu_ratio(one, over) for name, one in summaries.items()}
    largest = max((ratio.value for ratio in ratios.values() if ratio.value), default=1.0)
    order = sorted(ratios, key=lambda name: ratios[name].value or 0, reverse=True)
    rows = [_bar(name, ratios[name], largest, top + _HEAD + number * _ROW) for number, name in enumerate(order)]
    head = f'<text class="title" x="20" y="{top + 24}">{escape(title)}, over a bare ASGI application</text>\n'
    return head + "".join(rows), _HEAD + len(order) * _ROW


def _bar(name: str, ratio: Ratio, largest: float, top: int) -> str:
    server = next(server for server in SERVERS if server.name == name)
    title = escape(server.title.replace("**", ""))
    own = server is STREAMLIMIT
    kind = "own" if own else "bar" if server.keeps else "bare"
    length = (WIDTH - _LEFT - _RIGHT) * (ratio.value or 0) / largest
    value = "not compared" if ratio.value is None else f"{ratio.value:.2f}"
    style = ' class="own-text"' if own else ""
    return (
        f'<text{style} x="{_LEFT - 10}" y="{top + 13}" text-anchor="end">{title}</text>\n'
        f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{length:.1f}" height="18" rx="3"/>\n'
        f'<text{style} x="{_LEFT + length + 8:.1f}" y="{top + 13}">{value}</text>\n'
    )
