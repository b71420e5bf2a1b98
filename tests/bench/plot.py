"""Line charts as SVG."""

from html import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 400, 60, 130, 40, 50
COLOURS = ["#0b6e4f", "#c84630", "#3c5a99", "#8d6a9f", "#b8860b", "#444444"]


def nice_step(span, steps=5):
    """A step of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** (len(str(int(span / steps))) - 1) if span >= steps else 0.1
    while span / power > steps * 10:
        power *= 10
    return next((factor * power for factor in (1, 2, 5, 10) if span / (factor * power) <= steps), 10 * power)


def ticks(most):
    step = nice_step(most or 1)
    return [n * step for n in range(int(most / step) + 2)]


def spread(labels, gap=14):
    """Labels (y, text, colour) moved down until none covers another."""
    placed = []
    for y, text, colour in sorted(labels):
        if placed:
            y = max(y, placed[-1][0] + gap)
        placed.append((y, text, colour))
    return placed


def lines(title, x_name, y_name, series):
    """series: {name: [(x, y)]}."""
    points = [point for line in series.values() for point in line]
    x_most = max(x for x, _ in points) or 1
    y_ticks = ticks(max(y for _, y in points))

    def place(x, y):
        return (LEFT + x / x_most * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y / y_ticks[-1] * (HEIGHT - TOP - BOTTOM))

    def text(x, y, words, anchor="middle", more=""):
        return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(words)}</text>'

    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12">',
             f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
             text(LEFT, TOP - 18, title, "start", 'font-size="15"'),
             text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, x_name),
             text(LEFT - 10, TOP - 2, y_name, "end")]
    for y in y_ticks:
        height = place(0, y)[1]
        parts.append(f'<path d="M{LEFT} {height:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(text(LEFT - 8, height + 4, f"{y:g}", "end"))
    for x in sorted({x for x, _ in points}):
        parts.append(text(place(x, 0)[0], HEIGHT - BOTTOM + 18, f"{x:g}"))
    labels = []
    for (name, line), colour in zip(series.items(), COLOURS):
        spots = [place(x, y) for x, y in line]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in spots]
        labels.append((spots[-1][1], name, colour))
    for y, name, colour in spread(labels):
        parts.append(text(WIDTH - RIGHT + 10, y + 4, name, "start", f'fill="{colour}"'))
    return "\n".join([*parts, "</svg>\n"])
