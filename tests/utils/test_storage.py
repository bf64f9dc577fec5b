"""Paths, bytes and images: one sentence for everything that can be wrong with a file."""

import io

import pytest
from PIL import Image

from mllm.errors import ConfigError, DataError
from mllm.utils import storage
from mllm.utils.object_settings import parse_url
from mllm.utils.storage import open_image


def png(size=(4, 3), mode="RGB", color=None, **options):
    buffer = io.BytesIO()
    Image.new(mode, size, color or 0).save(buffer, "PNG", **options)
    return buffer.getvalue()


def jpeg(orientation=None):
    """2x1 pixels, left red, right blue; orientation 6 means: turn by 90 degrees clockwise."""
    image = Image.new("RGB", (16, 8), "red")
    image.paste("blue", (8, 0, 16, 8))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", exif=exif)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "empty file"),
        (b"<html>404</html>", "not an image"),
        (png(size=(64, 64), color=(1, 2, 3))[:60], "not an image, or truncated"),
        (jpeg()[:-200], "truncated"),
        (png(size=(200, 100)), "too large: 200x100 has more than 10000 pixels"),
    ],
)
def test_an_unusable_image_is_a_data_error_that_names_it(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_image(tmp_path / "a.png", max_pixels=10_000)
    assert "a.png" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_image(tmp_path):
    with pytest.raises(DataError, match="directory"):
        open_image(tmp_path)


@pytest.mark.parametrize("path", ["../b.png", "x/../../b.png", "/etc/passwd", "s3://bucket/b.png", "a\0.png"])
def test_paths_stay_inside_their_root(tmp_path, path):
    (tmp_path / "b.png").write_bytes(png())
    (tmp_path / "root").mkdir()
    with pytest.raises(DataError, match="leads out of its folder"):
        open_image(path, root=tmp_path / "root")


def test_a_name_that_begins_like_the_root_is_outside(tmp_path):
    with pytest.raises(DataError, match="leads out"):
        storage.inside("/data/coco", "/data/coco2/a.png")
    assert storage.inside("/data/coco", "/data/coco/a.png") == "/data/coco/a.png"
    assert storage.inside("s3://b/root", "x/a.png") == "s3://b/root/x/a.png"
    with pytest.raises(DataError, match="leads out"):
        storage.inside("s3://b/root", "../a.png")
    assert storage.inside("s3://b/root", "x/../y/./a.png") == "s3://b/root/y/a.png"


def test_images_come_as_rgb_from_below_the_root(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.png").write_bytes(png(mode="L", color=7))
    image = open_image("sub/../sub/a.png", root=tmp_path)
    assert (image.mode, image.size, image.getpixel((0, 0))) == ("RGB", (4, 3), (7, 7, 7))


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    """0x8000 of 0xffff is half: 128 of 255."""
    (tmp_path / "a.png").write_bytes(png(mode="I;16", color=0x8000))
    assert open_image(tmp_path / "a.png").getpixel((0, 0)) == (128, 128, 128)


def test_a_turned_photograph_needs_a_decision(tmp_path):
    (tmp_path / "a.jpg").write_bytes(jpeg(orientation=6))
    with pytest.raises(DataError, match="EXIF orientation 6"):
        open_image(tmp_path / "a.jpg")
    assert open_image(tmp_path / "a.jpg", exif="ignore").size == (16, 8)
    turned = open_image(tmp_path / "a.jpg", exif="apply")
    assert turned.size == (8, 16)
    red, _, blue = turned.getpixel((4, 2))  # left becomes top
    assert red > 200 > 50 > blue
    with pytest.raises(ConfigError, match="expected 'error', 'apply' or 'ignore'"):
        open_image(tmp_path / "a.jpg", exif="maybe")
    (tmp_path / "b.jpg").write_bytes(jpeg(orientation=1))
    assert open_image(tmp_path / "b.jpg").size == (16, 8)


def test_variables_in_paths(monkeypatch):
    monkeypatch.delenv("MLLM_DATA", raising=False)
    monkeypatch.setenv("SOMEWHERE", "/x")
    assert storage.data_root() == "data"
    assert storage.resolve_path("${MLLM_DATA}/a") == "data/a"
    assert storage.resolve_path("${SOMEWHERE}/a") == "/x/a"
    monkeypatch.setenv("MLLM_DATA", "/d")
    assert storage.resolve_path("${MLLM_DATA}/a") == "/d/a"
    with pytest.raises(ConfigError, match="'NOT_SET_AT_ALL' is not set"):
        storage.resolve_path("${NOT_SET_AT_ALL}/a")


def test_text_is_utf8_with_or_without_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfx")
    assert storage.read_text(tmp_path / "a.txt") == "x"
    (tmp_path / "a.txt").write_bytes(b"ab\xff")
    with pytest.raises(DataError, match=r"a.txt: not UTF-8 text: .* at byte 2"):
        storage.read_text(tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("path", "remote", "parsed"),
    [
        ("s3://b/k/l.png", True, (None, "b", "k/l.png")),
        ("petrel:s3://b/k", True, (None, "b", "k")),
        ("petrel://b/k", True, (None, "b", "k")),
        ("fast:s3://b/k", True, ("fast", "b", "k")),
        ("S3://b", True, (None, "b", "")),
        ("/a/b", False, None),
        ("C:/x", False, None),
    ],
)
def test_addresses(path, remote, parsed):
    assert storage.is_remote(path) is remote
    if remote:
        assert parse_url(path) == parsed


@pytest.mark.parametrize("path", ["s3:/bucket/a.png", "gs://bucket/a.png"])
def test_an_address_that_is_none_gets_a_hint(path):
    with pytest.raises(DataError, match=r"no such file \(remote ones are s3://bucket/key or cluster:s3://bucket/key\)"):
        storage.read_bytes(path)
    with pytest.raises(DataError, match=r"no such file$"):
        storage.read_bytes("/none/a.png")


def test_names_in_a_folder(tmp_path):
    for name in ("b.txt", "a.txt", "c.md", "sub/d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert storage.file_names(tmp_path, ".txt") == ["a.txt", "b.txt"]
    assert storage.file_names(tmp_path / "none", ".txt") == []


def _undecoded(image):
    return getattr(image, "tile", None) not in (None, [])


def test_header_only_gives_undecoded_images_whose_pixels_are_there_for_who_asks(tmp_path):
    (tmp_path / "a.png").write_bytes(png(size=(40, 30), color=(1, 2, 3)))
    (tmp_path / "b.jpg").write_bytes(jpeg())
    with storage.header_only() as opened:
        images = [open_image(name, root=tmp_path) for name in ("a.png", "b.jpg")]
        assert all(map(_undecoded, images))
    assert [image.size for image in images] == [(40, 30), (16, 8)]
    assert images[0].getpixel((5, 5)) == (1, 2, 3)
    assert [(one.where, one.format) for one in opened] == [
        (str(tmp_path / "a.png"), "PNG"),
        (str(tmp_path / "b.jpg"), "JPEG"),
    ]
    assert opened[0].image is images[0]
    assert opened[0].digest != opened[1].digest
    assert not _undecoded(open_image(tmp_path / "a.png"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (jpeg()[:-200], "truncated"),
        (png(size=(64, 64), color=(1, 2, 3))[:-12], None),  # all pixels are there, only the end mark is not
        (png(size=(64, 64), color=(1, 2, 3))[:-40], "truncated"),
        (jpeg(orientation=6), "EXIF orientation 6"),
        (b"", "empty file"),
    ],
)
def test_header_only_judges_as_a_run_does(tmp_path, content, message):
    (tmp_path / "a.png").write_bytes(content)

    def opens():
        try:
            open_image(tmp_path / "a.png")
        except DataError as error:
            return str(error)
        return None

    expected = opens()
    assert (expected is None) if message is None else message in expected
    with storage.header_only():
        assert opens() == expected


def test_header_only_finds_exif_data_behind_the_pixels_of_a_png(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = png(exif=exif)
    # The chunk moved behind the pixels, where the format allows it, too.
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4], "big")
    iend = content.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(content[:start] + content[end:iend] + content[start:end] + content[iend:])
    with storage.header_only(), pytest.raises(DataError, match="EXIF orientation 6"):
        open_image(tmp_path / "a.png")
    with storage.header_only():
        assert open_image(tmp_path / "a.png", exif="apply").size == (3, 4)


def test_other_kinds_of_images_are_decoded_and_rgb_within_header_only(tmp_path):
    (tmp_path / "grey.png").write_bytes(png(mode="L", color=7))
    (tmp_path / "rgb.png").write_bytes(png())
    with storage.header_only() as opened:
        grey = open_image(tmp_path / "grey.png")
        assert (grey.mode, _undecoded(grey), opened[0].format) == ("RGB", False, "PNG")
    with storage.header_only(decode=True):
        assert not _undecoded(open_image(tmp_path / "rgb.png"))


def test_header_only_holds_in_its_own_thread_alone(tmp_path):
    from concurrent.futures import ThreadPoolExecutor

    (tmp_path / "a.png").write_bytes(png())
    with storage.header_only() as opened, ThreadPoolExecutor(1) as pool:
        image = pool.submit(open_image, tmp_path / "a.png").result()
        assert not _undecoded(image)
        assert opened == []
