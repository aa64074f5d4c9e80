"""Gets the package that release.json names from the package registry of the training project, and compares its SHA-256.

    python3 fetch_package.py

It writes dist/ and package.env. The project is in the variable LIFECYCLE_PACKAGE_PROJECT, and the job's own token reads it.
"""

import hashlib
import json
import os
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import quote


def setting(name):
    value = os.environ.get(name)
    if not value:
        sys.exit(f"The variable {name} is missing: run this in a job of GitLab, and see README.md for the variables to set")
    return value


def release():
    """Package, version and SHA-256 of release.json."""
    try:
        found = json.loads(Path("release.json").read_text(encoding="utf-8"))
        return [str(found[key]) for key in ("package", "version", "sha256")]
    except (KeyError, OSError, TypeError, ValueError) as error:
        sys.exit(f"release.json cannot be read: {error!r}. It has the texts package, version and sha256")


def download(project, package, version):
    """The file of the package."""
    place = "/".join(quote(part, safe="") for part in (package, version, f"{version}.zip"))
    url = f"{setting('CI_API_V4_URL')}/projects/{quote(project, safe='')}/packages/generic/{place}"
    request = urllib.request.Request(url)
    # Where GitLab sends the client on to its storage, the token stays behind.
    request.add_unredirected_header("JOB-TOKEN", setting("CI_JOB_TOKEN"))
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        sys.exit(
            f"{project} gives no {package} {version}: {error.code} {error.reason}. Compare release.json with its package registry, "
            "and add this project to Settings > CI/CD > Job token permissions there"
        )
    except OSError as error:
        sys.exit(f"GitLab does not answer: {error}")


def main():
    package, version, sha256 = release()
    content = download(setting("LIFECYCLE_PACKAGE_PROJECT"), package, version)
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        sys.exit(f"{package} {version} has the SHA-256 {found}, and release.json says {sha256}: nothing is deployed")
    file = Path("dist") / f"{version}.zip"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    Path("package.env").write_text(f"PACKAGE_FILE={file}\nPACKAGE_SHA256={sha256}\n", encoding="utf-8")
    print(f"{file}: {len(content)} bytes, SHA-256 {sha256}")


if __name__ == "__main__":
    main()
