"""The board as text and as a table for programs."""

CANDIDATES = ["afs", "afsd.fuse", "local", "bindfs"]


def figure(value):
    if value is None:
        return ""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}" if value >= 0.001 else f"{value:.2g}"


def cells(board, row):
    """What is said of a row, a word for each column."""
    ratio = board.ratio(row)
    measured = [figure(board.median(row.key, name)) or ("failed" if (row.key, name) in board.failures else "")
                for name in CANDIDATES]
    wanted = "" if row.limit is None else f"<= {row.limit:g}"
    of = "" if row.against is None else f"of {row.against}"
    return [row.what, row.unit, *measured, f"{ratio:.2f}" if ratio is not None else "", f"{wanted} {of}".strip(),
            board.verdict(row)]


HEAD = ["", "unit", *CANDIDATES, "ratio", "wanted", "verdict"]


def tsv(board, rows):
    return "".join("\t".join(words) + "\n" for words in [HEAD, *(cells(board, row) for row in rows)])


def text(board, rows):
    table = [HEAD, *(cells(board, row) for row in rows)]
    widths = [max(len(words[column]) for words in table) for column in range(len(HEAD))]
    lines = ["  ".join(word.ljust(width) if column in (0, 7, 8) else word.rjust(width)
                       for column, (word, width) in enumerate(zip(words, widths))).rstrip() for words in table]
    lines += [f"{key} of {name} failed: {why}" for (key, name), why in board.failures.items()]
    return "\n".join(lines)
