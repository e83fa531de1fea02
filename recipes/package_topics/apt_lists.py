"""Debian's package lists, fetched by apt into a folder of our own: without root, the machine's apt state untouched."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

CODENAME = "bookworm"
COMPONENT = "main"
ARCHITECTURE = "amd64"  # pinned, so that every machine gets the same list
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")

# The machine's settings that say how to reach the network; everything else of its configuration (hooks, other
# indices, compression) stays out.
NETWORK_SETTING = re.compile(r"Acquire::(https?|Retries|ForceIPv\d|Check-Date|Check-Valid-Until)\b")

SETTINGS = """\
Dir::Etc::Parts "/dev/null";
Dir::Etc::Main "/dev/null";
Dir::Etc::SourceList "{folder}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "{folder}/state";
Dir::State::Status "{folder}/status";
Dir::Cache "{folder}/cache";
APT::Architecture "{architecture}";
APT::Architectures "{architecture}";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::GzipIndexes "false";
Acquire::PDiffs "false";
Acquire::Retries "3";
Acquire::http::Timeout "30";
Acquire::Languages {{ {languages} }};
"""

Progress = Callable[[float], None]


class FetchError(Exception):
    """The lists could not be had; the message says why."""


@dataclass(frozen=True)
class AptLists:
    """Files of one release, uncompressed."""

    release: Path
    packages: Path
    translations: dict[str, Path]  # by language code

    def all(self) -> dict[str, Path]:
        named = {f"Translation-{language}": path for language, path in self.translations.items()}
        return {"InRelease": self.release, "Packages": self.packages, **named}

    def release_field(self, name: str) -> str:
        found = re.search(rf"^{name}: (.*)$", self.release.read_text("utf-8"), re.MULTILINE)
        return found.group(1) if found else ""


def _apt(arguments: list[str], settings: Path | None) -> str:
    environment = {**os.environ, "LC_ALL": "C"}
    environment.pop("APT_CONFIG", None)
    if settings:
        environment["APT_CONFIG"] = str(settings)
    try:
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise FetchError(f"{arguments[0]} is not on this machine") from error
    if done.returncode != 0:
        raise FetchError(done.stderr.strip() or f"{' '.join(arguments)} failed")
    return done.stdout


def _mirror() -> str:
    """The mirror that this machine takes the release from."""
    lines = _apt(["apt-get", "indextargets", "--format", "$(RELEASE) $(COMPONENT) $(REPO_URI)"], None)
    wanted = f"{CODENAME} {COMPONENT} "
    mirrors = sorted({line.removeprefix(wanted) for line in lines.splitlines() if line.startswith(wanted)})
    if not mirrors:
        raise FetchError(f"apt's sources on this machine have no Debian {CODENAME} {COMPONENT}")
    return next((uri for uri in mirrors if uri.rstrip("/").endswith("/debian")), mirrors[0])


def _configure(folder: Path, languages: Iterable[str]) -> Path:
    for name in ("state/lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    options = f"arch={ARCHITECTURE}" + (f" signed-by={KEYRING}" if KEYRING.exists() else "")
    (folder / "sources.list").write_text(f"deb [{options}] {_mirror()} {CODENAME} {COMPONENT}\n")
    network = [line for line in _apt(["apt-config", "dump"], None).splitlines() if NETWORK_SETTING.match(line)]
    quoted = " ".join(f'"{language}";' for language in languages)
    own = SETTINGS.format(folder=folder, architecture=ARCHITECTURE, languages=quoted)
    settings = folder / "apt.conf"
    settings.write_text(own + "\n".join(network) + "\n")
    return settings


def _update(settings: Path, progress: Progress) -> None:
    """Runs `apt-get update`; apt reports `dlstatus:ITEM:PERCENT:TEXT` lines on the pipe."""
    reading, writing = os.pipe()
    command = ["apt-get", "-q", "-o", f"APT::Status-Fd={writing}", "update"]
    environment = {**os.environ, "LC_ALL": "C", "APT_CONFIG": str(settings)}
    log = settings.with_name("update.log")
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, pass_fds=[writing], stdout=output, stderr=output)
    os.close(writing)
    with os.fdopen(reading, encoding="utf-8", errors="replace") as status:
        for line in status:
            if line.startswith("dlstatus:"):
                progress(float(line.split(":")[2]) / 100)
    if process.wait() != 0:
        said = [line for line in log.read_text("utf-8", "replace").splitlines() if line[:2] in ("E:", "W:")]
        raise FetchError("\n".join(said[-5:]) or f"apt-get update failed, see {log}")


def find_lists(folder: Path, languages: Iterable[str]) -> AptLists | None:
    """The lists that an earlier fetch left in `folder`; None when one is missing."""
    languages = list(languages)
    settings = folder.resolve() / "apt.conf"
    releases = sorted((folder / "state/lists").glob(f"*_dists_{CODENAME}_InRelease"))
    if not settings.exists() or len(releases) != 1:
        return None
    found: dict[str, Path] = {}
    targets = _apt(["apt-get", "indextargets", "--format", "$(IDENTIFIER)\t$(LANGUAGE)\t$(FILENAME)"], settings)
    for line in targets.splitlines():
        kind, language, name = line.split("\t")
        if Path(name).exists():
            found["Packages" if kind == "Packages" else language] = Path(name)
    if any(name not in found for name in ("Packages", *languages)):
        return None
    return AptLists(releases[0], found["Packages"], {language: found[language] for language in languages})


def fetch_lists(folder: Path, languages: Iterable[str], progress: Progress) -> AptLists:
    """Fetches the newest lists into `folder`, or raises FetchError."""
    languages = list(languages)
    settings = _configure(folder.resolve(), languages)
    _update(settings, progress)
    lists = find_lists(folder, languages)
    if lists is None:
        raise FetchError(f"apt-get update left no complete lists in {folder}")
    if (lists.release_field("Origin"), lists.release_field("Codename")) != ("Debian", CODENAME):
        raise FetchError(f"{lists.release} is not Debian's {CODENAME}")
    return lists
