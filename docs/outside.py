"""Preprocessor of mdBook: leads links that leave the book to the repository.

The pages link to files of the repository, such as `../runner-config/config.toml`, which no book has. With `BOOK_SOURCE` (the address
below which the repository's files are shown, such as `https://gitlab.example.com/ml/sagemaker-executor/-/blob/main`), or in a job of
GitLab CI, such a link leads there. Without it the text stays, with the path beside it. mdBook calls it with `supports`, and then with
the book in JSON on stdin.
"""

import json
import os
import posixpath
import re
import sys

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
CODE = re.compile(r"(?ms)(^```.*?^```|`[^`\n]+`(?!\]))")


def source():
    given = os.environ.get("BOOK_SOURCE")
    project, commit = os.environ.get("CI_PROJECT_URL"), os.environ.get("CI_COMMIT_SHA")
    return given or (f"{project}/-/blob/{commit}" if project and commit else None)


def is_outside(target, pages):
    """Files beside the pages are copied into the book, except Markdown that is no page."""
    if re.match(r"[a-z]+:", target):
        return False
    path = posixpath.normpath(target)
    return path.startswith("..") or (path.endswith(".md") and path not in pages)


def led(content, pages, address):
    def replaced(found):
        text, target, anchor = found[1], found[2], found[3] or ""
        if not is_outside(target, pages):
            return found[0]
        path = posixpath.normpath(posixpath.join("docs", target))
        if address:
            return f"[{text}]({address}/{path}{anchor})"
        return f"{text} (`{path}`)" if path not in text else text

    # Odd parts are code, which stays.
    parts = CODE.split(content)
    return "".join(part if number % 2 else LINK.sub(replaced, part) for number, part in enumerate(parts))


def chapters(items):
    for item in items:
        chapter = item.get("Chapter") if isinstance(item, dict) else None
        if chapter:
            yield chapter
            yield from chapters(chapter["sub_items"])


def main():
    if len(sys.argv) > 1 and sys.argv[1] == "supports":
        return
    _context, book = json.load(sys.stdin)
    items = book["items"] if "items" in book else book["sections"]
    found = list(chapters(items))
    pages = {chapter["path"] for chapter in found if chapter["path"]}
    for chapter in found:
        chapter["content"] = led(chapter["content"], pages, source())
    json.dump(book, sys.stdout)


if __name__ == "__main__":
    main()
