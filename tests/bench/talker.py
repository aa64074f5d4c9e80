"""Scripts that print with the time of writing in each piece, and what their output must be.

Pure: text in, text out.
"""

# Prints about one piece a second until the control connection ends. Without a fork: the pause is a read of that
# connection. What it prints follows from the job's number and the times, so that a reader can tell each missing byte.
TALKER = r"""#!/usr/bin/env bash
set -eo pipefail
export LC_ALL=C
cd '{project}'
exec 9<>/dev/tcp/127.0.0.1/{port}
echo {job} >&9
n=0
pause() { if read -r -t "$1" -u 9 line || [ $? -le 128 ]; then over=yes; fi; }
over=
while [ -z "$over" ]; do
    n=$((n + 1))
    case $(((n * 7 + {job}) % 20)) in
    0)  for i in 1 2 3 4 5 6 7 8 9 10; do printf '{job}.%d burst %d @%s@\n' $n $i $EPOCHREALTIME; done ;;
    1)  printf '{job}.%d Continue? [y/N] @%s@' $n $EPOCHREALTIME
        pause 0.7
        printf ' y @%s@\n' $EPOCHREALTIME ;;
    2)  for i in 1 2 3; do
            printf '\r{job}.%d [%-3.*s] \e[32m%d\e[0m of 3 @%s@' $n $i '###' $i $EPOCHREALTIME
            [ -n "$over" ] || pause 0.4
        done
        printf '\n' ;;
    3)  printf '    \tindented {job}.%d @%s@\n\n' $n $EPOCHREALTIME ;;
    *)  printf '{job}.%d the quick brown fox jumps over the lazy dog @%s@\n' $n $EPOCHREALTIME ;;
    esac
    [ -n "$over" ] || pause 0.$((RANDOM % 400 + 500))
    [ -n "$over" ] || pause 0.$((RANDOM % 300 + 100))
done
printf 'end %d @%s@\n' $n $EPOCHREALTIME
"""


def expected_of(job, marks):
    """What TALKER printed, rebuilt from the times found in the output."""
    times = iter(marks)
    out, n = [], 0
    count = len(marks)
    used = 0

    def mark():
        nonlocal used
        used += 1
        return next(times)

    try:
        while used < count - 1:
            n += 1
            kind = (n * 7 + job) % 20
            if kind == 0:
                out += [b"%d.%d burst %d @%s@\n" % (job, n, i, mark()) for i in range(1, 11)]
            elif kind == 1:
                out.append(b"%d.%d Continue? [y/N] @%s@" % (job, n, mark()))
                out.append(b" y @%s@\n" % mark())
            elif kind == 2:
                for i in (1, 2, 3):
                    out.append(b"\r%d.%d [%-3s] \x1b[32m%d\x1b[0m of 3 @%s@" % (job, n, b"#" * i, i, mark()))
                out.append(b"\n")
            elif kind == 3:
                out.append(b"    \tindented %d.%d @%s@\n\n" % (job, n, mark()))
            else:
                out.append(b"%d.%d the quick brown fox jumps over the lazy dog @%s@\n" % (job, n, mark()))
        out.append(b"end %d @%s@\n" % (n, mark()))
    except StopIteration:
        pass
    return b"".join(out)


# Prints nothing until the control connection ends.
IDLE = r"""#!/usr/bin/env bash
exec 9<>/dev/tcp/127.0.0.1/{port}
echo {job} >&9
read -r -u 9 line
echo end
"""

# Says over the control connection how long `seq` took into `cat` (three times), into the job's output, and when that ended.
THROUGHPUT = r"""#!/usr/bin/env bash
set -eo pipefail
export LC_ALL=C
exec 9<>/dev/tcp/127.0.0.1/{port}
echo {job} >&9
took() { local us=$((${2/./} - ${1/./})); printf '%d.%06d' $((us / 1000000)) $((us % 1000000)); }
plain=
for i in 1 2 3; do
    from=$EPOCHREALTIME
    seq 1 10000000 | cat >/dev/null
    plain+="$(took $from $EPOCHREALTIME) "
done
from=$EPOCHREALTIME
seq 1 10000000
to=$EPOCHREALTIME
printf '%s\n%s\n%s\n' "$plain" "$(took $from $to)" "$to" >&9
"""

EXACT = "#!/usr/bin/env bash\ncat '{project}/payload'\n"

# What a follower of logs can get wrong: numbered lines about one a second, each entry with the time of writing.
NUMBERED = r"""
export LC_ALL=C
exec {pause}<> <(:)
long=$(printf '%020000d' 0)
for ((n = 1; n <= COUNT; n++)); do
    case $((n % 10)) in
    1) printf 'L%d plain @%s@\n' $n $EPOCHREALTIME ;;
    2) printf 'L%d \e[32mcolor\e[0m @%s@\n' $n $EPOCHREALTIME ;;
    3) printf '\tL%d tab @%s@\n' $n $EPOCHREALTIME ;;
    4) printf '    L%d indented @%s@\n' $n $EPOCHREALTIME ;;
    5) printf 'L%d blank lines follow @%s@\n\n\n' $n $EPOCHREALTIME ;;
    6) printf 'L%d bar @%s@ 10%%\r50%%\r100%%\n' $n $EPOCHREALTIME ;;
    7) printf 'L%d long @%s@ %s\n' $n $EPOCHREALTIME $long ;;
    8) printf 'L%d literal #033 and \\n @%s@\n' $n $EPOCHREALTIME ;;
    *) printf 'L%d quick @%s@\n' $n $EPOCHREALTIME ;;
    esac
    ((n % 10 == 9)) || read -t 1 -u $pause line || :
done
"""


def numbered(count):
    """The script NUMBERED with so many lines."""
    return NUMBERED.replace("COUNT", str(count))


def entry_of(number, time):
    """Entry [number] as NUMBERED printed it at a time, without its last newline."""
    long = b"0" * 20000
    form = {
        1: b"L%d plain @%s@", 2: b"L%d \x1b[32mcolor\x1b[0m @%s@", 3: b"\tL%d tab @%s@", 4: b"    L%d indented @%s@",
        5: b"L%d blank lines follow @%s@\n\n", 6: b"L%d bar @%s@ 10%%\r50%%\r100%%", 7: b"L%d long @%s@ " + long,
        8: b"L%d literal #033 and \\n @%s@",
    }.get(number % 10, b"L%d quick @%s@")
    return form % (number, time)
