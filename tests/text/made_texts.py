"""Texts that would be markup, control a terminal, or fail to encode."""

NASTY = [
    "[front]",
    "[/lab]",
    "net[/v2]",
    ":smile:",
    "[bold]x[/]",
    "[link=http://x]y[/link]",
    r"\[a]",
    "李 ü",
    "a\x1b[2Jb",
    "{x}",
]
