"""The output folder: names that stay inside it, and files that are complete or do not exist.

joyedit writes a file under a temporary name in its final folder, flushes it to the disk, renames it, and
flushes the folder. So every file with a final name is complete, even after a power cut.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from joyedit.errors import ItemError, OutputError, UsageError, os_reason
from joyedit.job import failpoints
from joyedit.job.hashing import sha256_of
from joyedit.job.own_files import FAILED, REPORT, RESULTS, SHARDS, TEMPORARY_SUFFIX, is_in_shard, is_temporary
from joyedit.job.results.safe_open import open_folder, own_folder, read_own, room_remedy, take_group

# Errors that concern one name. Every other OSError (no space, quota, read-only, input/output) concerns the folder.
_NAME_ERRORS = frozenset(
    {
        errno.ENAMETOOLONG,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,
        errno.ENOTEMPTY,
        errno.ELOOP,
        errno.EINVAL,
        errno.EILSEQ,
    }
)

# Disks of Windows, shares and encrypted folders take fewer names than others: no ? * < > | ", or 143 bytes at most.
_REFUSED_NAMES = frozenset({errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ})
_NAME_REMEDY = "the disk of the output folder does not take this name: rename the picture, or use another disk with -o"
_DISK_ERRORS = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ESTALE})
NO_HARD_LINKS = frozenset({errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EACCES})

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_REPORT = 16 << 20

TAKEN_REMEDY = "choose another output folder with -o, or move that file away"


class OutputFolder:
    """One run's output folder. All methods may be called from any thread.

    From `prepare` on, every file is reached through a handle of the folder, and no link is followed below it:
    whatever somebody puts in the place of a folder meanwhile, nothing is written elsewhere.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note: str | None = None
        """What the file system of this folder cannot do."""
        self._root: int | None = None  # set by prepare()

    def check(self) -> None:
        """Refuse a folder that could not work later. Creates nothing.

        Raises `UsageError` if the path is no folder, or if a file of another program has the name of one of joyedit's
        own files; `OutputError` if the folder cannot be written.
        """
        nearest = self.path
        while not nearest.exists() and not nearest.is_symlink() and nearest != nearest.parent:
            nearest = nearest.parent
        if not nearest.is_dir():
            raise UsageError(f"the output {self.path} cannot be a folder: {nearest} is no folder (change --output)")
        if not os.access(nearest, os.W_OK | os.X_OK):
            why = f"no permission on {nearest}"
            if _is_read_only(nearest):
                why = f"{nearest} is on a file system that is read-only (choose another --output)"
            raise OutputError(f"the output folder {self.path} cannot be written: {why}")
        refuse_foreign_files(self.path)

    def prepare(self) -> None:
        """Create the folder if it is missing, and open it. Raises `OutputError`."""
        try:
            _make(self.path)
            self.close()
            self._root = open_folder(self.path)
        except OSError as error:
            raise OutputError(f"cannot create the output folder {self.path}: {os_reason(error)}") from error

    def check_name(self) -> None:
        """Raises `OutputError` if another folder has the name of this one by now: what lies there says nothing."""
        try:
            is_same = os.path.samestat(os.stat(self.path), os.fstat(self.handle))
        except OSError:
            is_same = False
        if not is_same:
            raise OutputError(f"the output folder {self.path} was moved, removed or replaced while the run began")

    def close(self) -> None:
        """Give the handle back. A second call does nothing."""
        if self._root is not None:
            os.close(self._root)
            self._root = None

    @property
    def handle(self) -> int:
        """The handle of the folder."""
        if self._root is None:
            raise RuntimeError("prepare() comes first")
        return self._root

    def write(
        self,
        relative: str,
        fill: Callable[[BinaryIO], None],
        *,
        may_replace: Callable[[], bool] | None = None,
        flush: bool = True,
    ) -> Path:
        """Write one complete file: `fill` gets the open temporary file. Returns the final path.

        `relative` has `/` between its parts; their folders are created. A file that is already there is replaced if
        its content is the same, or if `may_replace` says so (None: always). After an error there is no new file.
        Without `flush` it may be empty after a power cut: that is for files that can be made anew.

        Raises `ItemError`: "output_outside" if the name leads out of the folder or through a link, "output_name" if
        the file system refuses the name, "output_taken" if a file is there that stays,
        "write_failed" if Pillow refuses. Raises `OutputError` if the folder itself cannot be written. Other errors
        of `fill` pass through.
        """
        parts = parts_of(relative)
        try:
            with self.parent(parts, relative) as folder:
                with complete_file(folder, fill, flush=flush) as temporary:
                    failpoints.reached("file.rename")
                    put(folder, temporary, parts[-1], may_replace)
                    failpoints.reached("file.renamed")
                failpoints.reached("file.folder")
                if flush:
                    self.sync(folder)
                failpoints.reached("file.done")
        except FileExistsError as error:
            message = f"the file {relative!r} is there already, and no record of joyedit names it"
            raise ItemError("output_taken", f"{message} ({TAKEN_REMEDY})") from error
        except OSError as error:
            raise self.typed(error, relative) from error
        return self.path.joinpath(*parts)

    def write_bytes(
        self,
        relative: str,
        data: bytes | memoryview,
        *,
        may_replace: Callable[[], bool] | None = None,
        flush: bool = True,
    ) -> Path:
        """Write one complete file. Errors as in `write`."""

        def fill(file: BinaryIO) -> None:
            rest = memoryview(data)
            if failpoints.armed():
                file.write(rest[: len(rest) // 2])
                file.flush()
                failpoints.reached("file.half")
                rest = rest[len(rest) // 2 :]
            file.write(rest)

        return self.write(relative, fill, may_replace=may_replace, flush=flush)

    def write_text(self, relative: str, text: str) -> Path:
        """Write one complete text file in UTF-8. Errors as in `write`."""
        return self.write_bytes(relative, text.encode("utf-8", "backslashreplace"))

    def remove(self, relative: str) -> None:
        """Remove a file that is joyedit's own, if it is there."""
        with contextlib.suppress(OSError, ItemError):
            parts = parts_of(relative)
            with self.parent(parts, relative, create=False) as folder:
                os.unlink(parts[-1], dir_fd=folder)

    def remove_picture(self, relative: str, size: int, sha256: str) -> bool:
        """Remove a picture if its content is still the recorded one. Says whether it did."""
        try:
            parts = parts_of(relative)
            with self.parent(parts, relative, create=False) as folder:
                handle = os.open(parts[-1], _READ, dir_fd=folder)
                with open(handle, "rb", buffering=0) as file:
                    status = os.fstat(handle)
                    if not stat.S_ISREG(status.st_mode) or status.st_size != size or sha256_of(file) != sha256:
                        return False
                os.unlink(parts[-1], dir_fd=folder)
        except (OSError, ItemError):
            return False
        return True

    def clean(self) -> int:
        """Remove the unfinished files that a killed run left behind, but for those of shards. Returns their number.

        Those that only a colleague may remove stay. Call it only with the lock held: another run's files look the
        same. Raises `OutputError`.
        """
        count = 0
        try:
            for place, folders, names, folder in os.fwalk(".", dir_fd=self.handle):
                if place == f"./{SHARDS}":  # each has a lock of its own
                    folders[:] = [name for name in folders if not is_in_shard(f"{SHARDS}/{name}")]
                for name in names:
                    if is_temporary(name):
                        with contextlib.suppress(PermissionError, FileNotFoundError):
                            os.unlink(name, dir_fd=folder)
                            count += 1
        except OSError as error:
            raise OutputError(f"cannot clean {self.path}: {os_reason(error)}") from error
        return count

    @contextlib.contextmanager
    def parent(self, parts: Sequence[str], relative: str, *, create: bool = True) -> Iterator[int]:
        """A handle of the folder of this file, by way of all folders between."""
        folder = os.dup(self.handle)
        try:
            for part in parts[:-1]:
                inner = self._enter(folder, part, relative, create)
                os.close(folder)
                folder = inner
            yield folder
        finally:
            os.close(folder)

    def _enter(self, folder: int, name: str, relative: str, create: bool) -> int:
        try:
            return os.open(name, _FOLDER, dir_fd=folder)
        except FileNotFoundError:
            if not create:
                raise
        except OSError as error:
            if _is_link(folder, name):
                message = f"the output name {relative!r} leads out of the output folder by the link {name!r}"
                raise ItemError("output_outside", message) from error
            raise
        with contextlib.suppress(FileExistsError):  # another thread was first
            os.mkdir(name, dir_fd=folder)
            self.sync(folder)
        inner = os.open(name, _FOLDER, dir_fd=folder)
        take_group(inner, folder)
        return inner

    def sync(self, folder: int) -> None:
        """Flush the entries of a folder with this handle. Raises OSError."""
        if not sync_folder(folder):
            self.note = (
                "the file system of the output folder cannot flush folders: after a power cut, "
                "run the same command again to edit what was lost"
            )

    def typed(self, error: OSError, relative: str) -> ItemError | OutputError:
        """The error at a file as one of an item, if it concerns the name, or else of the folder."""
        if error.errno is None:  # Pillow raises its own errors as OSError without a number
            return ItemError("write_failed", f"cannot write {relative!r}: {error}")
        if error.errno in _NAME_ERRORS:
            remedy = f" ({_NAME_REMEDY})" if error.errno in _REFUSED_NAMES else ""
            return ItemError("output_name", f"cannot write {relative!r}: {os_reason(error)}{remedy}")
        return OutputError(f"cannot write {relative!r} in {self.path}: {os_reason(error)}{room_remedy(error)}")


def _is_read_only(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    return False


def _make(path: Path) -> None:
    """Create a folder and those above it, each with the group of the folder in which it lies. Raises OSError."""
    if path.is_dir():
        return
    _make(path.parent)
    path.mkdir(exist_ok=True)
    with own_folder(path) as made, own_folder(path.parent) as parent:
        take_group(made, parent)


def parts_of(relative: str) -> tuple[str, ...]:
    """The parts of a name below the folder. Raises `ItemError` if it leads out."""
    name = PurePosixPath(relative)
    if not name.parts or name.is_absolute() or ".." in name.parts or "\0" in relative:
        raise ItemError("output_outside", f"the output name {relative!r} leads out of the output folder")
    return name.parts


@contextlib.contextmanager
def complete_file(folder: int, fill: Callable[[BinaryIO], object], *, flush: bool = True) -> Iterator[str]:
    """A new file in the open folder, flushed, under a temporary name, which is given. Where the block raises, it goes.

    `fill` gets the open file. Raises OSError, and what `fill` raises.
    """
    # A name of its own: the item's name may have 255 bytes, which leaves no room for a suffix.
    temporary = f".{secrets.token_hex(8)}{TEMPORARY_SUFFIX}"
    try:
        handle = os.open(temporary, _NEW, 0o666, dir_fd=folder)
        with open(handle, "wb") as file:
            failpoints.reached("file.create")
            take_group(handle, folder)
            fill(file)
            file.flush()
            failpoints.reached("file.fsync")
            if flush:
                os.fsync(handle)
            failpoints.reached("file.synced")
        yield temporary
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise


def put(folder: int, temporary: str, name: str, may_replace: Callable[[], bool] | None) -> None:
    """Give a complete file its final name. Raises FileExistsError for a file that stays."""
    if may_replace is not None:
        try:
            os.link(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)  # refuses a name that is taken
        except OSError as error:
            if not isinstance(error, FileExistsError) and error.errno not in NO_HARD_LINKS:
                raise
            # Without hard links, the moment between this look and the renaming is the best there is.
            if _exists(folder, name) and not may_replace() and not _have_one_content(folder, temporary, name):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        else:
            os.unlink(temporary, dir_fd=folder)
            return
    os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)


def _have_one_content(folder: int, one: str, other: str) -> bool:
    """Whether two plain files hold the same bytes."""
    sums = []
    for name in (one, other):
        with contextlib.suppress(OSError), open(os.open(name, _READ, dir_fd=folder), "rb", buffering=0) as file:
            if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                sums.append(sha256_of(file))
    return len(sums) == 2 and sums[0] == sums[1]


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_link(folder: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def refuse_foreign_files(folder: Path) -> None:
    """Raises `UsageError` if this folder has no records, but a file with a name that joyedit would write anew."""
    if os.path.lexists(folder / RESULTS):
        return
    for name in (REPORT, FAILED):
        if os.path.lexists(folder / name) and not _is_own(folder, name):
            raise UsageError(
                f"{folder / name}: this file is not from joyedit, and a run would replace it "
                "(move it away, or choose another output folder with -o)"
            )


def _is_own(folder: Path, name: str) -> bool:
    """Whether this report.json or failed.jsonl is of joyedit: somebody may have removed the records alone."""
    data = read_own(folder, name, _MAX_REPORT) or b""
    keys = {"state", "exit_code", "asked"} if name == REPORT else {"id", "instruction", "output", "seed", "steps"}
    try:
        read = json.loads(data if name == REPORT else data.split(b"\n", 1)[0])
    except (ValueError, RecursionError):
        return False
    return isinstance(read, dict) and keys <= read.keys()


def sync_folder(handle: int) -> bool:
    """Flush the entries of a folder to the disk. False where the file system cannot do that. Raises OSError."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise
        return False
    return True
