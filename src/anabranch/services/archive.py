"""Module archives: one signed file with a module in it (docs/modules.md, "The archive").

An envelope, and behind it a ZIP with ``module.toml`` and the module's files. Tools that read ZIP
pass over what is before it, so ``unzip -l`` lists an archive. Nothing of the ZIP is looked at
before the signature is found right.
"""

import stat
import struct
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Self

from anabranch.services.errors import ArchiveError
from anabranch.services.keys import PrivateKey, PublicKey
from anabranch.services.manifest import FILE_NAME, Manifest, parse_manifest

MAX_ARCHIVE = 16 * 1024**2
MAX_UNPACKED = 64 * 1024**2
MAX_FILES = 1000
MAX_PATH = 200
PURPOSE = "anabranch module archive"
"""What the signature is for, so that none given for anything else passes for it."""
SUFFIX = ".abm"
_MAGIC = b"\x89ABM\r\n\x1a\n"
_HEAD = struct.Struct("!8sBBHH")
_FORMAT = 1
_MAX_SIGNER, _MAX_SIGNATURE = 64, 1024
_LEFT_OUT = {"__pycache__", ".git", ".mypy_cache", ".ruff_cache", ".pytest_cache"}
_ZIP_EPOCH = (1980, 1, 1, 0, 0, 0)
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, ValueError, KeyError, EOFError, RuntimeError,
            NotImplementedError, OverflowError, struct.error, AttributeError)  # fmt: skip
"""What ``zipfile`` raises when the bytes are no good."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive as bytes; :meth:`verify` comes before everything that looks inside.

    Attributes:
        signer: the user who signed it; empty: nobody did.
        signature: of :attr:`signed`.
        body: the ZIP.
    """

    signer: str
    signature: bytes
    body: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Take the envelope off.

        Raises:
            ArchiveError: it is none, or too large.
        """
        if len(data) > MAX_ARCHIVE:
            raise ArchiveError(f"an archive has at most {MAX_ARCHIVE >> 20} MiB")
        if len(data) < _HEAD.size or not data.startswith(_MAGIC):
            raise ArchiveError("this is no module archive")
        _, version, reserved, signer_length, signature_length = _HEAD.unpack_from(data)
        if version != _FORMAT or reserved:
            raise ArchiveError(f"an archive of format {version}, which this node does not know")
        if signer_length > _MAX_SIGNER or signature_length > _MAX_SIGNATURE:
            raise ArchiveError("the signer or the signature is too long")
        middle = _HEAD.size + signer_length
        end = middle + signature_length
        if len(data) < end:
            raise ArchiveError("the archive is cut short")
        try:
            signer = data[_HEAD.size : middle].decode()
        except UnicodeDecodeError:
            raise ArchiveError("the signer's name is not UTF-8") from None
        return cls(signer, data[middle:end], data[end:])

    def __bytes__(self) -> bytes:
        signer = self.signer.encode()
        head = _HEAD.pack(_MAGIC, _FORMAT, 0, len(signer), len(self.signature))
        return head + signer + self.signature + self.body

    def sign(self, signer: str, key: PrivateKey) -> "Archive":
        """Return it signed, in place of whatever signature it had.

        Raises:
            ArchiveError: the signer's name is empty or longer than 64 bytes.
        """
        if not 0 < len(signer.encode()) <= _MAX_SIGNER:
            raise ArchiveError("the signer's name has 1 to 64 bytes")
        unsigned = Archive(signer, b"", self.body)
        return Archive(signer, key.sign(PURPOSE, unsigned.signed), self.body)

    @property
    def signed(self) -> bytes:
        """What the signature covers: the envelope's format and signer, and the body."""
        signer = self.signer.encode()
        return struct.pack("!BH", _FORMAT, len(signer)) + signer + self.body

    def verify(self, signer: str, key: PublicKey) -> None:
        """Check that ``signer``, whose key this is, signed it.

        Raises:
            ArchiveError: somebody else did, or nobody.
            SignatureError: the signature does not fit.
        """
        if not self.signer:
            raise ArchiveError("the archive is not signed")
        if self.signer != signer:
            raise ArchiveError(f"the archive is signed by {self.signer!r}, not by {signer!r}")
        key.verify(PURPOSE, self.signed, self.signature)

    def manifest(self) -> Manifest:
        """Return what the module says of itself.

        Raises:
            ArchiveError: the ZIP or the manifest is no good.
        """
        return parse_manifest(self.files().get(FILE_NAME, b""))

    def files(self) -> dict[str, bytes]:
        """Return all files by their path. All limits are checked before anything is unpacked.

        Raises:
            ArchiveError: the ZIP is no good, has a link or a path that leads elsewhere, or
                unpacks to too much.
        """
        try:
            with zipfile.ZipFile(BytesIO(self.body)) as opened:
                entries = _checked(opened)
                return {entry.filename: _read(opened, entry) for entry in entries}
        except _BAD_ZIP as error:
            raise ArchiveError(f"the ZIP is no good: {error}") from None

    def unpack(self, directory: Path) -> Manifest:
        """Write all files to a new directory, readable by everybody; it appears whole or not.

        Raises:
            ArchiveError: as :meth:`files`, or the directory cannot be written.
        """
        files = self.files()
        manifest = parse_manifest(files.get(FILE_NAME, b""))
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".unpack-", dir=directory.parent) as name:
                made = Path(name) / "module"
                made.mkdir()
                for path, data in files.items():
                    target = made / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(data)
                for each in (made, *made.rglob("*")):  # whatever the umask
                    each.chmod(0o755 if each.is_dir() else 0o644)
                made.rename(directory)
        except OSError as error:
            raise ArchiveError(f"cannot unpack to {directory}: {error.strerror}") from error
        return manifest


def pack(directory: Path) -> Archive:
    """Return an unsigned archive of a directory; the same files give the same bytes.

    Hidden files, Python's caches and earlier archives are left out.

    Raises:
        ArchiveError: there is no manifest, its entry's file is not there, a link is in the way,
            or it is too much.
    """
    files: dict[str, bytes] = {}
    try:
        for path in sorted(directory.rglob("*")):
            name = path.relative_to(directory)
            if any(part in _LEFT_OUT or part.startswith(".") for part in name.parts):
                continue
            if path.is_symlink():
                raise ArchiveError(f"{name} is a link: an archive has none")
            if path.is_file() and path.suffix not in {SUFFIX, ".pyc"}:
                files[name.as_posix()] = path.read_bytes()
    except OSError as error:
        raise ArchiveError(f"{error.filename}: {error.strerror}") from error
    if FILE_NAME not in files:
        raise ArchiveError(f"there is no {FILE_NAME} in {directory}")
    wanted = parse_manifest(files[FILE_NAME]).entry_files
    if files.keys().isdisjoint(wanted):
        raise ArchiveError(f"the entry's file {wanted[0]} is not in {directory}")
    written = BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_DEFLATED) as opened:
        for name_in_zip, data in files.items():
            entry = zipfile.ZipInfo(name_in_zip, _ZIP_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (stat.S_IFREG | 0o644) << 16
            opened.writestr(entry, data)
    made = Archive("", b"", written.getvalue())
    if made.files() != files or len(bytes(made)) + _MAX_SIGNER + _MAX_SIGNATURE > MAX_ARCHIVE:
        raise ArchiveError(f"an archive has at most {MAX_ARCHIVE >> 20} MiB")
    return made


def _checked(opened: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """Return the files of a ZIP, none of which leads elsewhere or is more than it may be."""
    infos = opened.infolist()
    if len(infos) > MAX_FILES:
        raise ArchiveError(f"the ZIP has more than {MAX_FILES} files")
    if sum(info.file_size for info in infos) > MAX_UNPACKED:
        raise ArchiveError(f"the ZIP unpacks to more than {MAX_UNPACKED >> 20} MiB")
    files: list[zipfile.ZipInfo] = []
    seen: set[PurePosixPath] = set()
    for info in infos:
        path = _path_of(info)
        if info.is_dir():
            continue
        if path in seen:
            raise ArchiveError(f"the ZIP has {str(path)!r} twice")
        seen.add(path)
        files.append(info)
    for path in seen:
        if any(parent in seen for parent in path.parents):
            raise ArchiveError(f"the ZIP has a file where {str(path)!r} needs a directory")
    return files


def _path_of(info: zipfile.ZipInfo) -> PurePosixPath:
    name = info.orig_filename
    path = PurePosixPath(name)
    plain = name.isprintable() and "\\" not in name and ":" not in name and len(name) <= MAX_PATH
    if not plain or path.is_absolute() or not path.parts or ".." in path.parts:
        raise ArchiveError(f"the ZIP has a path that is not taken: {name[:80]!r}")
    if str(path) != name.rstrip("/"):
        raise ArchiveError(f"the ZIP has a path in disguise: {name[:80]!r}")
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind not in {0, stat.S_IFDIR if info.is_dir() else stat.S_IFREG}:
        raise ArchiveError(f"{name!r} is a link or a device: an archive has only files")
    if info.flag_bits & 1 or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ArchiveError(f"{name!r} is encrypted, or packed in a way that is not taken")
    return path


def _read(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    with opened.open(info) as file:  # reads no more than it says, and checks the CRC
        return file.read()
