"""Records the commands of docs/TRY.md that are marked to be run, as an asciinema file (version 2).

    python3 docs/record.py PROGRAM docs/first-five-minutes.cast

PROGRAM is the release build of sagemaker-executor. The commands are typed into a bash in a terminal of 100 columns and 30 lines, in a
directory of its own with a home of its own, so that nothing of this machine is shown but its time. A pause is at most two seconds long.
`asciinema play FILE` plays it.
"""

import fcntl
import json
import os
import pathlib
import pty
import re
import select
import struct
import subprocess
import sys
import tempfile
import termios
import time

COLUMNS, LINES = 100, 30
LONGEST_PAUSE, KEY = 2.0, 0.03
PROMPT = "$ "
ROOT = pathlib.Path(__file__).resolve().parent.parent


def commands():
    page = (ROOT / "docs/TRY.md").read_text()
    for block in re.findall(r"(?ms)^```sh run\n(.*?)^```", page):
        yield from block.splitlines()
        # The next block begins in the directory of the first one.
        yield "cd"


class Recording:
    """Events with their times, which go on by at most the longest pause."""

    def __init__(self):
        self.events, self.time, self.last = [], 0.0, time.monotonic()

    def add(self, text, after=None):
        now = time.monotonic()
        self.time += min(now - self.last if after is None else after, LONGEST_PAUSE)
        self.last = now
        self.events.append([round(self.time, 3), "o", text])


def terminal(home, programs):
    """A bash in a terminal that shows one prompt and does not repeat what is typed."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    modes = termios.tcgetattr(follower)
    modes[3] &= ~termios.ECHO
    termios.tcsetattr(follower, termios.TCSANOW, modes)
    variables = {"HOME": home, "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin", "PS1": "\x04", "PS2": "", "TERM": "xterm-256color", "LC_ALL": "C.UTF-8"}
    shell = subprocess.Popen(["bash", "--norc", "--noprofile", "--noediting", "-i"], cwd=home, env=variables, stdin=follower,
                             stdout=follower, stderr=follower, start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(follower)
    return leader, shell


def until_prompt(leader, recording):
    """Records what the shell shows until its prompt, which is one character that no command writes."""
    decoded = b""
    while True:
        if not select.select([leader], [], [], 300)[0]:
            raise SystemExit("a command of docs/TRY.md shows nothing for five minutes")
        decoded += os.read(leader, 1 << 16)
        is_over = decoded.endswith(b"\x04")
        text = decoded.removesuffix(b"\x04")
        try:
            shown = text.decode()
        except UnicodeDecodeError:
            continue
        if shown and recording:
            recording.add(shown)
        if is_over:
            return
        decoded = b""


def main():
    program, target = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])
    with tempfile.TemporaryDirectory() as home:
        programs = pathlib.Path(home, ".programs")
        programs.mkdir()
        (programs / "sagemaker-executor").symlink_to(program)
        for name in ("docs", "runner-config"):
            pathlib.Path(home, name).symlink_to(ROOT / name)
        leader, shell = terminal(home, programs)
        until_prompt(leader, None)
        recording = Recording()
        for command in commands():
            if command != "cd":
                recording.add(PROMPT, 1.0)
                for key in command:
                    recording.add(key, KEY)
                recording.add("\r\n", 0.3)
            os.write(leader, command.encode() + b"\n")
            recording.last = time.monotonic()
            until_prompt(leader, recording)
        os.write(leader, b"exit\n")
        shell.wait()
    text = "".join(event[2] for event in recording.events)
    if home in text:
        raise SystemExit(f"the recording shows the directory {home}")
    header = {"version": 2, "width": COLUMNS, "height": LINES, "title": "sagemaker-executor: the first five minutes", "env": {"TERM": "xterm-256color", "SHELL": "/bin/bash"}}
    lines = [header, *recording.events]
    target.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    print(f"{target}: {recording.time:.0f} s, {len(recording.events)} events")


if __name__ == "__main__":
    main()
