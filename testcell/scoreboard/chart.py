"""The board as a picture: for each row the candidates' figures as bars, and ours as a number."""

from xml.sax.saxutils import escape

from report import CANDIDATES, figure

COLORS = {"afs": "#1f77b4", "afsd.fuse": "#ff7f0e", "local": "#7f7f7f", "bindfs": "#bbbbbb"}
TEXT, BARS, FIGURES = 330, 400, 90
BAR, GAP, HEAD = 7, 8, 62


def svg(board, rows, title):
    """Bars are relative to the longest of their row: shorter is better everywhere."""
    out, y = [], HEAD
    for row in rows:
        figures = {name: board.median(row.key, name) for name in CANDIDATES}
        figures = {name: value for name, value in figures.items() if value is not None}
        if len(figures) < 2:
            continue
        longest = max(figures.values()) or 1
        middle = y + len(figures) * BAR / 2 + 4
        out.append(f'<text x="{TEXT - 8}" y="{middle:.0f}" text-anchor="end">{escape(row.what)}</text>')
        for number, (name, value) in enumerate(figures.items()):
            top, wide = y + number * BAR, max(1, value / longest * BARS)
            out.append(f'<rect x="{TEXT}" y="{top}" width="{wide:.1f}" height="{BAR - 1}" fill="{COLORS[name]}"/>')
        out.append(f'<text x="{TEXT + BARS + 8}" y="{middle:.0f}" fill="{COLORS["afs"]}">'
                   f'{figure(figures.get("afs"))} {row.unit}</text>')
        y += len(figures) * BAR + GAP
    legend = "".join(f'<rect x="{TEXT + 100 * number}" y="36" width="10" height="10" fill="{COLORS[name]}"/>'
                     f'<text x="{TEXT + 15 + 100 * number}" y="45">{name}</text>'
                     for number, name in enumerate(CANDIDATES))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {TEXT + BARS + FIGURES} {y}" '
            'font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="#ffffff"/>\n'
            f'<text x="14" y="22" font-size="15">{escape(title)}</text>\n{legend}\n' + "\n".join(out) + "\n</svg>\n")
