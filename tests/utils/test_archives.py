"""Archives that nobody vouches for: what is unpacked, and what is refused before anything is written."""

import io
import stat
import tarfile
import zipfile

import pytest

from mllm.errors import DataError
from mllm.utils import archives
from mllm.utils.archives import Member, is_archive, list_members, unpack


def write_zip(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def write_tar(path, members, mode="w"):
    """Members are (name, content) or ready TarInfo."""
    with tarfile.open(path, mode) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                archive.addfile(info, io.BytesIO(member[1]))
    return path


def zip_entry(name, kind):
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | 0o777) << 16
    return info


def tar_entry(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def written(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


GOOD = [("set/a/1.jpg", b"one"), ("set/b/2.jpg", b"two"), ("__MACOSX/set/a/._1.jpg", b"x"), ("set/a/._1.jpg", b"x")]


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: write_zip(folder / "x.zip", GOOD),
        lambda folder: write_tar(folder / "x.tar", [tar_entry("set", tarfile.DIRTYPE), *GOOD]),
        lambda folder: write_tar(folder / "x.tar.gz", GOOD, "w:gz"),
    ],
)
def test_files_are_unpacked_once_and_what_macos_adds_is_passed_over(tmp_path, make):
    path, out = make(tmp_path), tmp_path / "out"
    assert is_archive(path)
    assert list_members(path) == [Member("set/a/1.jpg", 3), Member("set/b/2.jpg", 3)]
    assert unpack(path, out) == (2, 0)
    assert written(out) == {"set/a/1.jpg": b"one", "set/b/2.jpg": b"two"}
    assert unpack(path, out) == (0, 2)
    assert unpack(path, out, {"set/b/2.jpg": "elsewhere/b.jpg"}) == (1, 0)
    assert (out / "elsewhere/b.jpg").read_bytes() == b"two"


def test_a_file_that_differs_is_not_replaced_unless_asked(tmp_path):
    path, out = write_zip(tmp_path / "x.zip", [("a.jpg", b"one"), ("b.jpg", b"two")]), tmp_path / "out"
    out.mkdir()
    (out / "b.jpg").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"b.jpg is there already and is not the file in .*--overwrite"):
        unpack(path, out)
    assert written(out) == {"b.jpg": b"mine"}
    assert unpack(path, out, overwrite=True) == (2, 0)
    assert written(out) == {"a.jpg": b"one", "b.jpg": b"two"}


GOOD_FIRST = ("good.jpg", b"good")
DEVICE = tar_entry("disk", tarfile.BLKTYPE)
MALICIOUS = {
    "absolute.zip": ([GOOD_FIRST, ("/etc/x", b"x")], "'/etc/x' has an absolute path"),
    "drive.zip": ([GOOD_FIRST, ("C:/x", b"x")], "'C:/x' has an absolute path"),
    "up.zip": ([GOOD_FIRST, ("a/../../x", b"x")], "'a/../../x' leads out of its folder"),
    "backslash.zip": ([GOOD_FIRST, ("a\\..\\..\\x", b"x")], r"leads out of its folder"),
    "link.zip": ([GOOD_FIRST, (zip_entry("l", stat.S_IFLNK), b"/etc")], "'l' is a link"),
    "device.zip": ([GOOD_FIRST, (zip_entry("d", stat.S_IFBLK), b"")], "'d' is a device"),
    "fifo.zip": ([GOOD_FIRST, (zip_entry("f", stat.S_IFIFO), b"")], "'f' is a device or another special file"),
    "twice.zip": ([("x", b"1"), ("./x", b"2")], "'./x' occurs twice"),
    "absolute.tar": ([GOOD_FIRST, ("/etc/x", b"x")], "'/etc/x' has an absolute path"),
    "up.tar": ([GOOD_FIRST, ("../x", b"x")], "'../x' leads out of its folder"),
    "symlink.tar": ([GOOD_FIRST, tar_entry("l", tarfile.SYMTYPE, "/etc")], "'l' is a link"),
    "hardlink.tar": ([GOOD_FIRST, tar_entry("l", tarfile.LNKTYPE, "good.jpg")], "'l' is a link"),
    "device.tar": ([GOOD_FIRST, DEVICE], "'disk' is a device or another special file"),
    "fifo.tar": ([GOOD_FIRST, tar_entry("f", tarfile.FIFOTYPE)], "'f' is a device or another special file"),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_a_malicious_archive_is_refused_before_anything_is_written(tmp_path, name):
    members, message = MALICIOUS[name]
    path = (write_zip if name.endswith("zip") else write_tar)(tmp_path / name, members)
    with pytest.raises(DataError) as caught:
        unpack(path, tmp_path / "out")
    assert message in str(caught.value)
    assert "nothing was unpacked" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("suffix", ["zip", "tar.gz"])
def test_a_bomb_is_refused_before_anything_is_written(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(archives, "EXPANSION_COUNTS_FROM_BYTES", 1 << 16)
    members = [("a.txt", bytes(1 << 20)), ("b.txt", bytes(1 << 20))]
    path = tmp_path / f"bomb.{suffix}"
    if suffix == "zip":
        write_zip(path, members, compression=zipfile.ZIP_DEFLATED)
    else:
        write_tar(path, members, "w:gz")
    with pytest.raises(DataError, match="over 200 times the archive, as a zip bomb does; nothing was unpacked"):
        unpack(path, tmp_path / "out")
    monkeypatch.setattr(archives, "MAX_EXPANSION", 1 << 20)
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", (1 << 20) + 1)
    with pytest.raises(DataError, match=r"'b.txt' brings the content to 2,097,152 bytes: at most 1,048,577"):
        unpack(path, tmp_path / "out")
    monkeypatch.setattr(archives, "MAX_MEMBERS", 1)
    with pytest.raises(DataError, match=r"'b.txt' is one too many"):
        unpack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_member_with_more_bytes_than_it_announces_is_not_left_behind(tmp_path):
    path, out = write_zip(tmp_path / "x.zip", [("a.jpg", b"0123456789")]), tmp_path / "out"
    content = path.read_bytes()
    # The size stands little-endian in the local header and in the directory; both are told to be 4.
    path.write_bytes(content.replace((10).to_bytes(4, "little"), (4).to_bytes(4, "little")))
    with pytest.raises(DataError, match=r"x.zip: cannot be unpacked"):
        unpack(path, out)
    assert written(out) == {}


def test_what_is_no_archive_or_is_broken_is_one_sentence(tmp_path):
    (tmp_path / "x.rar").write_bytes(b"Rar!\x1a\x07\x00 and so on")
    with pytest.raises(DataError, match=r"x.rar: expected a zip, tar or tar.gz archive; unpack one of another kind"):
        list_members(tmp_path / "x.rar")
    assert not is_archive(tmp_path / "x.rar")
    with pytest.raises(DataError, match=r"archive '.*none.zip' does not exist"):
        list_members(tmp_path / "none.zip")
    whole = write_tar(tmp_path / "x.tar.gz", [("a.jpg", bytes(range(256)) * 40)], "w:gz").read_bytes()
    (tmp_path / "x.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"x.tar.gz: (cannot be unpacked|expected a zip)"):
        unpack(tmp_path / "x.tar.gz", tmp_path / "out")
    assert not (tmp_path / "out").exists() or written(tmp_path / "out") == {}


def test_a_full_disk_is_known_before(tmp_path, monkeypatch):
    path = write_zip(tmp_path / "x.zip", [("a.jpg", b"0123456789")])
    usage = archives.shutil.disk_usage(tmp_path)._replace(free=9)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(DataError, match=r"unpacking needs 10 bytes but .*out has 9 left; make room"):
        unpack(path, tmp_path / "out")
