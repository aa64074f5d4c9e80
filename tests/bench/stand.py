"""What the benchmarks of the trace stand on: an emulator, a runner host, the calls of the runner, figures of processes.

Knows nothing of what is measured. Standard library only.
"""

import concurrent.futures
import datetime
import hashlib
import hmac
import json
import os
import pathlib
import re
import selectors
import signal
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request

TICK = os.sysconf("SC_CLK_TCK")
# The time of writing, in the output of a script.
MARK = re.compile(rb"@(\d{10})[.,](\d{6})@")
GET_SOURCES = "#!/usr/bin/env bash\nset -eo pipefail\nmkdir -p '{project}' '{project}.tmp'\ntouch '{project}/file'\n"


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def table(head, rows):
    """Prints a table in Markdown."""
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(map(str, row)) + " |")


def cpu_of(pid):
    """User and system seconds of a process so far, without its children."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICK


def memory_of(pid, name="VmHWM"):
    """A figure of a process's status in MiB."""
    try:
        text = pathlib.Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.M)
    return int(found.group(1)) / 1024 if found else 0.0


def agents(endpoint):
    """Process ids of the agents that work with this emulator."""
    found, wanted = [], f"AWS_ENDPOINT_URL={endpoint}".encode()
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = pathlib.Path(f"/proc/{entry}/cmdline").read_bytes().split(b"\0")
            if len(words) > 1 and words[0].endswith(b"/sagemaker-executor") and words[1] == b"agent":
                if wanted in pathlib.Path(f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    found.append(int(entry))
        except OSError:
            pass
    return found


def credentials(data_dir):
    """What a client of the emulator with this data directory needs in its environment."""
    lines = (pathlib.Path(data_dir) / "credentials").read_text().splitlines()
    return {name.upper(): value for name, found, value in (line.partition(" = ") for line in lines) if found}


class Emulator:
    def __init__(self, driver, folder, *options):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        ready = self.folder / "ready"
        self.log = (self.folder / "emulator.log").open("wb")
        self.process = subprocess.Popen(
            [str(driver), "emulator", "--bucket", "bench", "--ready-file", str(ready), "--data-dir", str(self.folder / "data"),
             "--starting-delay", "0s", "--downloading-delay", "0s", "--training-delay", "0s", "--uploading-delay", "0s",
             # So that a ramp of hundreds of jobs does not take minutes; reading is what is measured.
             "--quota", "CreateTrainingJob=0", *options],
            stdout=subprocess.DEVNULL, stderr=self.log)
        deadline = time.monotonic() + 30
        while not ready.exists():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the emulator did not get ready, see {self.log.name}")
            time.sleep(0.01)
        self.endpoint = ready.read_text().strip()
        self.credentials = credentials(self.folder / "data")

    def own(self, path, query="", method="GET", body=b"", timeout=60):
        """A signed request to the emulator's own paths."""
        host, time_now = self.endpoint.split("//")[1], datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
        names, scope = "host;x-amz-date", f"{time_now[:8]}/us-east-1/emulator/aws4_request"
        canonical = f"{method}\n{path}\n{query}\nhost:{host}\nx-amz-date:{time_now}\n\n{names}\n{hashlib.sha256(body).hexdigest()}"
        key = ("AWS4" + self.credentials["AWS_SECRET_ACCESS_KEY"]).encode()
        text = f"AWS4-HMAC-SHA256\n{time_now}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        for part in [*scope.split("/"), text]:
            key = hmac.digest(key, part.encode(), "sha256")
        authorization = f"AWS4-HMAC-SHA256 Credential={self.credentials['AWS_ACCESS_KEY_ID']}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
        url = f"{self.endpoint}{path}" + (f"?{query}" if query else "")
        request = urllib.request.Request(url, body or None, {"x-amz-date": time_now, "authorization": authorization}, method=method)
        return urllib.request.urlopen(request, timeout=timeout)

    def requests(self):
        with self.own("/_emulator/requests") as answer:
            return json.load(answer)

    def ingested(self, prefix):
        """When each time of writing that a stream's events hold was ingested."""
        found = {}
        with self.own("/_emulator/logs", "prefix=" + urllib.parse.quote(prefix, safe="")) as answer:
            for line in answer:
                event = json.loads(line)
                for mark in MARK.finditer(event["message"].encode()):
                    written = int(mark.group(1)) + int(mark.group(2)) / 1e6
                    found.setdefault(written, event["ingestionTime"] / 1000)
        return found

    def plan(self, plan):
        self.own("/_emulator/faults", method="PUT", body=json.dumps(plan).encode()).read()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Control:
    """Where scripts report in: one connection a job, over which they are told to end and may say things."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port = self.listener.getsockname()[1]
        self.lock = threading.Lock()
        self.jobs = {}
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.settimeout(10)
            first = b""
            while not first.endswith(b"\n"):
                first += connection.recv(1)
            connection.settimeout(None)
            with self.lock:
                self.jobs[int(first)] = connection

    def ready(self):
        with self.lock:
            return set(self.jobs)

    def wait(self, jobs, seconds, check):
        """Waits until these have reported in; `check` may raise."""
        deadline = time.monotonic() + seconds
        while not set(jobs) <= self.ready() and time.monotonic() < deadline:
            check()
            time.sleep(0.1)
        return set(jobs) & self.ready()

    def end(self, job):
        with self.lock:
            connection = self.jobs.get(job)
        if connection:
            try:
                connection.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def said(self, job, timeout):
        """All that a script said until it closed its connection."""
        with self.lock:
            connection = self.jobs[job]
        connection.settimeout(timeout)
        words = b""
        while True:
            more = connection.recv(4096)
            if not more:
                return words
            words += more


class Run:
    """A process whose output is read: the bytes or their hash, when each time of writing arrived, and the end."""

    def __init__(self, process, marks=True, keep=True):
        self.process, self.keep = process, keep
        self.pieces, self.tail, self.total = [], b"", 0
        # (time of writing, time of arrival)
        self.marks = [] if marks else None
        self.hash = hashlib.sha256()
        self.ended_at = self.status = None

    def take(self, chunk, now):
        self.total += len(chunk)
        if self.keep:
            self.pieces.append(chunk)
        else:
            self.hash.update(chunk)
        if self.marks is not None:
            text = self.tail + chunk
            end = 0
            for found in MARK.finditer(text):
                self.marks.append((int(found.group(1)) + int(found.group(2)) / 1e6, now))
                end = found.end()
            self.tail = text[max(end, len(text) - 20):]

    def output(self):
        return b"".join(self.pieces)


class Readers:
    """Reads the pipes of all processes in one thread, and waits for the processes."""

    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.wake, self.waker = socket.socketpair()
        self.selector.register(self.wake, selectors.EVENT_READ, None)
        threading.Thread(target=self.loop, daemon=True).start()

    def add(self, run):
        os.set_blocking(run.process.stdout.fileno(), False)
        self.selector.register(run.process.stdout, selectors.EVENT_READ, run)
        self.waker.send(b"x")

    def loop(self):
        while True:
            for key, _ in self.selector.select():
                run = key.data
                if run is None:
                    self.wake.recv(4096)
                    continue
                try:
                    chunk = os.read(key.fd, 1 << 20)
                except BlockingIOError:
                    continue
                now = time.time()
                if chunk:
                    run.take(chunk, now)
                    continue
                self.selector.unregister(key.fileobj)
                threading.Thread(target=self.reap, args=(run,), daemon=True).start()

    def reap(self, run):
        run.status = run.process.wait()
        run.ended_at = time.time()
        run.process.stdout.close()


class Site:
    """A runner host: configuration, folders, and the calls of the runner."""

    def __init__(self, driver, folder, emulator, live_copy, trace_options=""):
        self.driver, self.folder, self.emulator = str(driver), pathlib.Path(folder), emulator
        self.folder.mkdir(parents=True, exist_ok=True)
        self.control, self.readers = Control(), Readers()
        self.jobs = {}
        (self.folder / "operator.toml").write_text(
            f'[aws]\nregion = "us-east-1"\nendpoint_url = "{emulator.endpoint}"\n[storage]\nbucket = "bench"\n'
            '[job]\nrole_arn = "arn:aws:iam::000000000000:role/bench"\nimage = "host"\n'
            f'[runner]\nbuilds_dir = "{folder}/builds"\ncache_dir = "{folder}/cache"\nstate_dir = "{folder}/state"\n'
            f'[trace]\nlive_copy = {"true" if live_copy else "false"}\n{trace_options}')

    def command(self, job, words):
        place = self.folder / f"job-{job}"
        env = {
            "PATH": os.environ["PATH"], "HOME": str(place), **self.emulator.credentials,
            "JOB_RESPONSE_FILE": str(place / "response.json"), "BUILD_EXIT_CODE_FILE": str(place / "code"),
            "CUSTOM_ENV_RUNNER_TEMP_PROJECT_DIR": f"{self.project(job)}.tmp",
            "SAGEMAKER_EXECUTOR_SESSION": self.jobs.get(job, ""),
        }
        return [self.driver, "--config", str(self.folder / "operator.toml"), *words], env

    def project(self, job):
        return self.folder / f"builds/1/token/{job}/group/project"

    def call(self, job, *words):
        command, env = self.command(job, words)
        done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if done.returncode:
            raise RuntimeError(f"job {job}: {words[0]} ended with {done.returncode}: {done.stderr.decode(errors='replace')}")
        return done.stdout

    def start(self, job, script, sources=GET_SOURCES, **reading):
        """All stages up to the script, which goes on by itself."""
        place = self.folder / f"job-{job}"
        place.mkdir(exist_ok=True)
        payload = {"id": job, "token": f"token-{job}", "job_info": {"project_id": 1}, "runner_info": {"timeout": 7200},
                   "steps": [{"name": "script", "script": ["true"]}, {"name": "after_script", "script": ["true"]}]}
        (place / "response.json").write_text(json.dumps(payload))
        self.jobs[job] = json.loads(self.call(job, "config"))["job_env"]["SAGEMAKER_EXECUTOR_SESSION"]
        self.call(job, "prepare")
        for stage, text in (("get_sources", sources), ("build_script", script)):
            text = text.replace("{project}", str(self.project(job))).replace("{job}", str(job))
            (place / stage).write_text(text.replace("{port}", str(self.control.port)))
        self.call(job, "run", str(place / "get_sources"), "get_sources")
        command, env = self.command(job, ["run", str(place / "build_script"), "build_script"])
        return self.follow(command, env, place / "err", **reading)

    def follow(self, command, env, errors, **reading):
        """Starts a process and reads its output."""
        with errors.open("wb") as stderr:
            process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, bufsize=0)
        return self.adopt(process, **reading)

    def adopt(self, process, **reading):
        """Reads the output of a process that runs already."""
        run = Run(process, **reading)
        self.readers.add(run)
        return run

    def errors(self, job):
        return (self.folder / f"job-{job}/err").read_text(errors="replace")

    def wait(self, runs, seconds):
        deadline = time.monotonic() + seconds
        while any(run.ended_at is None for run in runs) and time.monotonic() < deadline:
            time.sleep(0.05)
        late = [run for run in runs if run.ended_at is None]
        for run in late:
            run.process.kill()
        return not late

    def clean(self, jobs, workers=4):
        def one(job):
            try:
                self.call(job, "cleanup")
            except RuntimeError as error:
                print(f"<!-- {error} -->")
        with concurrent.futures.ThreadPoolExecutor(workers) as pool:
            list(pool.map(one, jobs))


class Peaks(threading.Thread):
    """Looks at the peak memory of an emulator's agents and of some drivers until it is stopped."""

    def __init__(self, emulator, *runs):
        super().__init__(daemon=True)
        self.emulator, self.runs, self.over, self.agent, self.driver = emulator, runs, threading.Event(), 0.0, 0.0
        self.start()

    def run(self):
        while not self.over.wait(0.1):
            self.driver = max([self.driver] + [memory_of(run.process.pid) for run in self.runs])
            self.agent = max([self.agent] + [memory_of(pid) for pid in agents(self.emulator.endpoint)])

    def stop(self):
        self.over.set()
        self.join()
        return self.agent, self.driver


class Usage:
    """CPU seconds by kind of process since the last look."""

    def __init__(self, emulator, runs):
        self.emulator, self.runs = emulator, runs
        self.last = self.look()

    def look(self):
        found = {"emulator": [(self.emulator.process.pid, cpu_of(self.emulator.process.pid))],
                 "driver": [(run.process.pid, cpu_of(run.process.pid)) for run in self.runs],
                 "agent": [(pid, cpu_of(pid)) for pid in agents(self.emulator.endpoint)],
                 "bench": [(os.getpid(), cpu_of(os.getpid()))]}
        return time.monotonic(), found

    def since(self):
        before, now = self.last, self.look()
        self.last = now
        span = now[0] - before[0]
        answer = {}
        for kind, entries in now[1].items():
            old = dict(before[1][kind])
            shares = [(cpu - old[pid]) / span for pid, cpu in entries if pid in old]
            answer[kind], answer[f"largest {kind}"] = sum(shares), max(shares, default=0.0)
        return answer


def machine_busy():
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return sum(fields) - fields[3] - fields[4], sum(fields)
