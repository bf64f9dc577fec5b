"""RS4: the four sub-datasets NWPU, RSICD, LR and DOTA of RS-instructions, with their images, in three sets.

From ``NWPU-RSICD-UAV-UCM-LR-DOTA-intrcutions.json`` (github BigData-KSU/RS-LLaVA) and the archives of the images to::

    <out>/imagenes/{NWPU/NWPU_images, RSICD/images, LR/Train, DOTA/images}
    <out>/dataset.json
    <out>/sets/data_{train,test,val}.json
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from mllm.dataset.llava import image_names
from mllm.dataset.prepare.output import check_outputs, row_writer
from mllm.dataset.prepare.partition import SPLITS, Ratios, partition
from mllm.dataset.rows import Row, open_rows
from mllm.errors import ConfigError, DataError, choices
from mllm.utils.archives import list_members, unpack
from mllm.utils.files import atomic_write
from mllm.utils.storage import inside, resolve_path

FOLDERS = {"NWPU": "NWPU/NWPU_images", "RSICD": "RSICD/images", "LR": "LR/Train", "DOTA": "DOTA/images"}
NAMED_MISSING = 3


@dataclass
class RS4Report:
    """What was made: counts of records left out, (records, images) by sub-dataset and split, unpacked files."""

    files: list[str]
    dropped: Counter[str] = field(default_factory=Counter)
    without_image: Counter[str] = field(default_factory=Counter)
    unpacked: dict[str, tuple[int, int]] = field(default_factory=dict)
    table: dict[str, dict[str, tuple[int, int]]] = field(default_factory=dict)


@dataclass
class _Record:
    position: int
    subset: str
    images: list[str]


def prepare_rs4(
    source: str,
    out: str,
    *,
    archives: Sequence[tuple[str, str]] = (),
    ratios: Ratios | None = None,
    seed: int = 0,
    allow_missing: bool = False,
    overwrite: bool = False,
) -> RS4Report:
    """Filter, unpack, verify, divide; the same arguments give the same bytes.

    Args:
        source: the annotation file of RS-instructions.
        out: the folder that gets ``imagenes``, ``dataset.json`` and ``sets``.
        archives: (sub-dataset, path) of zip and tar files; of each the images that records name are unpacked.
        ratios: shares of the sets, of each sub-dataset; an image (by name or content) is in one set only.
        seed: of the division.
        allow_missing: leave out records whose image is not there instead of stopping.
        overwrite: replace files of an earlier call.

    Raises:
        DataError: images are missing (all are listed in ``<out>/missing_images.txt``), a record is wrong, an archive
            is unsafe. Neither ``dataset.json`` nor the sets are touched then.
    """
    source, folder, ratios = resolve_path(source), Path(resolve_path(out)), ratios or Ratios()
    paths = {"all": folder / "dataset.json", **{name: folder / "sets" / f"data_{name}.json" for name in SPLITS}}
    check_outputs(list(paths.values()), overwrite=overwrite, sources=[source])
    rows = open_rows(source)
    report = RS4Report([])
    records = _select(rows, report.dropped)
    for place in FOLDERS.values():
        (folder / "imagenes" / place).mkdir(parents=True, exist_ok=True)
    _unpack(records, archives, folder / "imagenes", overwrite, report)
    records = _verify(records, folder, allow_missing, report)
    keys = _content_keys({name for record in records for name in record.images}, folder / "imagenes")
    splits = partition(
        [record.subset for record in records], [[keys[name] for name in one.images] for one in records], ratios, seed
    )
    _write(rows, records, splits, {name: path for name, path in paths.items() if name in ("all", *ratios.by_split)})
    for name in set(SPLITS) - set(ratios.by_split):
        paths.pop(name).unlink(missing_ok=True)
    report.files = [str(path) for path in paths.values()]
    report.table = _table(records, splits)
    return report


def _select(rows: Sequence[Row], dropped: Counter[str]) -> list[_Record]:
    records = []
    for position, row in enumerate(tqdm(rows, "records", unit="", disable=None)):
        names = image_names(row)
        subset = names[0].split("/")[0] if names else "no image"
        if subset not in FOLDERS:
            dropped[subset] += 1
            continue
        for name in names:
            try:
                inside("imagenes", name)
            except DataError as error:
                raise DataError(f"{row.place}: field 'image': {error}") from error
        records.append(_Record(position, subset, [posixpath.normpath(name) for name in names]))
    if not records:
        have = ", ".join(f"{name} ({count})" for name, count in dropped.items()) or "nothing"
        raise DataError(f"{getattr(rows, 'path', 'the file')}: no record of {', '.join(FOLDERS)}; the file has {have}")
    return records


def _unpack(
    records: Sequence[_Record], archives: Sequence[tuple[str, str]], folder: Path, overwrite: bool, report: RS4Report
) -> None:
    for subset, _ in archives:
        if subset not in FOLDERS:
            raise ConfigError(f"archive of {subset!r}: no such sub-dataset; {choices(subset, FOLDERS)}")
    for subset, path in archives:
        path = resolve_path(path)
        wanted = {name for record in records if record.subset == subset for name in record.images}
        targets = match_members([member.name for member in list_members(path)], wanted, path)
        if not targets:
            example = min(wanted, default="none")
            raise DataError(f"{path}: no member is an image that a record of {subset} names, such as {example!r}")
        report.unpacked[path] = unpack(path, folder, targets, overwrite=overwrite)


def match_members(members: Iterable[str], wanted: Iterable[str], path: str) -> dict[str, str]:
    """Member → image: of the same file name, and of those the one with most folders in common at the end.

    Archives begin with folders of their own (``NWPU-RESISC45/airplane/airplane_001.jpg``). Members that are no image
    asked for are left out.

    Raises:
        DataError: a member fits several images, or several members fit one image, equally well.
    """
    by_name: dict[str, list[str]] = {}
    for name in wanted:
        by_name.setdefault(posixpath.basename(name), []).append(name)
    best: dict[str, list[tuple[int, str]]] = {}
    for member in members:
        scores = sorted((_shared_end(member, name), name) for name in by_name.get(posixpath.basename(member), ()))
        if len(scores) > 1 and scores[-1][0] == scores[-2][0]:
            raise DataError(f"{path}: member {member!r} may be {scores[-2][1]!r} or {scores[-1][1]!r}; unpack by hand")
        if scores:
            best.setdefault(scores[-1][1], []).append((scores[-1][0], member))
    for name, found in best.items():
        found.sort()
        if len(found) > 1 and found[-1][0] == found[-2][0]:
            raise DataError(f"{path}: {name!r} may be member {found[-2][1]!r} or {found[-1][1]!r}; unpack by hand")
    return {found[-1][1]: name for name, found in best.items()}


def _shared_end(one: str, other: str) -> int:
    pairs = zip(reversed(one.split("/")), reversed(other.split("/")), strict=False)
    return next((count for count, (a, b) in enumerate(pairs) if a != b), min(one.count("/"), other.count("/")) + 1)


def _verify(records: list[_Record], folder: Path, allow_missing: bool, report: RS4Report) -> list[_Record]:
    images, listing = folder / "imagenes", folder / "missing_images.txt"
    names = sorted({name for record in records for name in record.images})
    missing = {name for name in tqdm(names, "images", unit="", disable=None) if not _has_content(images / name)}
    if not missing:
        listing.unlink(missing_ok=True)
        return records
    atomic_write(listing, "".join(f"{name}\n" for name in sorted(missing)))
    report.without_image.update(one.subset for one in records if not missing.isdisjoint(one.images))
    kept = [one for one in records if missing.isdisjoint(one.images)]
    if allow_missing and kept:
        return kept
    first = ", ".join(sorted(missing)[:NAMED_MISSING])
    others = "" if allow_missing else ", or leave their records out (--allow-missing)"
    raise DataError(
        f"{len(missing)} of {len(names)} images are missing or empty below {str(images)!r}, such as {first}; all are "
        f"listed in {str(listing)!r}: give their archives (--archive SET=PATH){others}"
    )


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _content_keys(names: Iterable[str], folder: Path) -> dict[str, str]:
    """Name → what tells its content from another's: a hash, or the name where no other file has its size."""
    by_size: dict[int, list[str]] = {}
    for name in sorted(names):
        by_size.setdefault(os.path.getsize(folder / name), []).append(name)
    keys = {own[0]: own[0] for own in by_size.values() if len(own) == 1}
    alike = [name for own in by_size.values() if len(own) > 1 for name in own]
    for name in tqdm(alike, "contents", unit=" images", disable=None):
        with open(folder / name, "rb") as stream:
            digest = hashlib.blake2b(digest_size=16)
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
        keys[name] = f"\0{digest.hexdigest()}"
    return keys


def _write(rows: Sequence[Row], records: Sequence[_Record], splits: Sequence[str], paths: Mapping[str, Path]) -> None:
    """All files at once, so that they appear together."""
    with ExitStack() as stack:
        writers = {name: stack.enter_context(row_writer(path)) for name, path in paths.items()}
        pairs = zip(records, splits, strict=True)
        for record, split in tqdm(pairs, "dataset.json", len(records), unit=" records", disable=None):
            row = rows[record.position]
            writers["all"](row)
            writers[split](row)


def _table(records: Sequence[_Record], splits: Sequence[str]) -> dict[str, dict[str, tuple[int, int]]]:
    counts: Counter[tuple[str, str]] = Counter()
    images: dict[tuple[str, str], set[str]] = {}
    for record, split in zip(records, splits, strict=True):
        counts[record.subset, split] += 1
        images.setdefault((record.subset, split), set()).update(record.images)
    return {
        subset: {split: (counts[subset, split], len(images.get((subset, split), ()))) for split in SPLITS}
        for subset in FOLDERS
    }
