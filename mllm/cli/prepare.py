"""Prepare a data set as its authors publish it: folders, sets, flattened files; from local files or a URL."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from mllm.cli.parsing import Parser
from mllm.errors import choices
from mllm.utils.program import UsageError

if TYPE_CHECKING:
    from mllm.dataset.prepare.convert import Lines
    from mllm.dataset.prepare.rs4 import RS4Report


def main(argv: list[str]) -> int:
    """Run one preparation; what is written and what is left out is printed."""
    if argv and argv[0] in PREPARATIONS:
        PREPARATIONS[argv[0]](argv[1:])
        return 0
    if argv and argv[0] in ("-h", "--help"):
        print(_help())
        return 0
    if not argv or argv[0].startswith("-"):
        raise UsageError(f"say what to prepare: {', '.join(PREPARATIONS)} ('mllm prepare --help' says more)")
    raise UsageError(f"nothing named {argv[0]!r} can be prepared; {choices(argv[0], PREPARATIONS)}")


def rs4(argv: list[str]) -> None:
    """RS-instructions → RS4: filtered, images unpacked and verified, divided into train, test and val."""
    parser = Parser("prepare rs4", rs4.__doc__)
    parser.add_argument("source", help="NWPU-RSICD-UAV-UCM-LR-DOTA-intrcutions.json")
    parser.add_argument("--out", default="${MLLM_DATA}", help="gets imagenes/, dataset.json and sets/ (default: data)")
    parser.add_argument(
        "--archive",
        action="append",
        default=[],
        type=_named_path,
        metavar="SET=PATH",
        help="images of NWPU, RSICD, LR or DOTA as zip, tar or tar.gz; may be repeated",
    )
    parser.add_argument("--train-ratio", type=float, default=0.7, help="share of the training set (0.7)")
    parser.add_argument("--test-ratio", type=float, default=0.2, help="share of the test set (0.2); the rest is val")
    parser.add_argument("--seed", type=int, default=0, help="of the division (0)")
    parser.add_argument("--allow-missing", action="store_true", help="leave out records whose image is not there")
    arguments = _parsed(parser, argv)

    from mllm.dataset.prepare.partition import Ratios
    from mllm.dataset.prepare.rs4 import prepare_rs4

    ratios = Ratios(arguments.train_ratio, arguments.test_ratio)
    _fetch(arguments, Path(arguments.source).parent, unpacked=False)
    report = prepare_rs4(
        arguments.source,
        arguments.out,
        archives=arguments.archive,
        ratios=ratios,
        seed=arguments.seed,
        allow_missing=arguments.allow_missing,
        overwrite=arguments.overwrite,
    )
    _print_rs4(report)


def refcoco(argv: list[str]) -> None:
    """REFER layout of RefCOCO, RefCOCO+, RefCOCOg, RefCLEF → REC lines."""
    parser = Parser("prepare refcoco", refcoco.__doc__)
    parser.add_argument("root", help="the folder that holds <name>/refs(<split-by>).p and <name>/instances.json")
    parser.add_argument("--name", default="refcoco", help="refcoco, refcoco+, refcocog or refclef (refcoco)")
    parser.add_argument("--split-by", default="unc", help="unc, umd, google or berkeley (unc)")
    parser.add_argument("--split", default="train", help="several are joined by + (train)")
    parser.add_argument(
        "--held-out", action="append", default=[], metavar="NAME/BY/SPLIT", help="leave out the images of these splits"
    )
    arguments = _parsed(parser, argv, out=True)
    _fetch(arguments, Path(arguments.root))

    from mllm.dataset.prepare.convert import refcoco_lines

    options = {key: getattr(arguments, key) for key in ("root", "name", "split_by", "split", "held_out")}
    _write(arguments, refcoco_lines(**options), "RECJsonl")


def flickr30k(argv: list[str]) -> None:
    """Flickr30k Entities (Sentences, Annotations, split lists) → CWB_flickr30k lines."""
    parser = Parser("prepare flickr30k", flickr30k.__doc__)
    parser.add_argument("root", help="the folder that holds Sentences, Annotations and <split>.txt")
    parser.add_argument("--split", default="train", help="several are joined by + (train)")
    parser.add_argument("--drop-unrelated", action="store_true", help="leave out what UNRELATED_CAPTIONS lists")
    arguments = _parsed(parser, argv, out=True)
    _fetch(arguments, Path(arguments.root))

    from mllm.dataset.prepare.convert import flickr30k_lines

    lines = flickr30k_lines(arguments.root, arguments.split, arguments.drop_unrelated)
    _write(arguments, lines, "Flickr30kJsonl")


def vg(argv: list[str]) -> None:
    """Visual Genome's region descriptions → REC lines, which serve REG and grounded captions too."""
    parser = Parser("prepare vg", vg.__doc__)
    parser.add_argument("regions", help="region_descriptions.json")
    parser.add_argument("image_data", help="image_data.json")
    parser.add_argument("--clip", action="store_true", help="cut boxes at the image's edges, drop those outside")
    arguments = _parsed(parser, argv, out=True)
    _fetch(arguments, Path(arguments.regions).parent)

    from mllm.dataset.prepare.convert import visual_genome_lines

    lines = visual_genome_lines(arguments.regions, arguments.image_data, arguments.clip)
    _write(arguments, lines, "RECJsonl")


def vizwiz(argv: list[str]) -> None:
    """VizWiz-Captions → caption lines."""
    parser = Parser("prepare vizwiz", vizwiz.__doc__)
    parser.add_argument("path", help="train.json or val.json")
    parser.add_argument("--keep-rejected", action="store_true", help="keep captions that are rejected")
    parser.add_argument("--keep-precanned", action="store_true", help="keep captions that are precanned")
    arguments = _parsed(parser, argv, out=True)
    _fetch(arguments, Path(arguments.path).parent)

    from mllm.dataset.prepare.convert import vizwiz_lines

    lines = vizwiz_lines(arguments.path, arguments.keep_rejected, arguments.keep_precanned)
    _write(arguments, lines, "CaptionJsonl", exif="apply")


def scienceqa(argv: list[str]) -> None:
    """ScienceQA's problems.json → LLaVA's CQM-A records."""
    parser = Parser("prepare scienceqa", scienceqa.__doc__)
    parser.add_argument("root", help="the folder that holds problems.json and pid_splits.json")
    parser.add_argument("--split", default="train", help="train, val, test, trainval or a mini split (train)")
    parser.add_argument("--images", default="all", help="all problems, those with an image, or those without (all)")
    parser.add_argument("--answer", default="letter", help="letter, A, ALE or LEA (letter)")
    parser.add_argument("--instruction", default="", help="a last line of every question")
    arguments = _parsed(parser, argv, out=True)
    _fetch(arguments, Path(arguments.root))

    from mllm.dataset.prepare.convert import scienceqa_lines

    options = {key: getattr(arguments, key) for key in ("root", "split", "images", "answer", "instruction")}
    _write(arguments, scienceqa_lines(**options), "ScienceQACQMA")


PREPARATIONS = {one.__name__: one for one in (rs4, refcoco, flickr30k, vg, vizwiz, scienceqa)}


def _help() -> str:
    width = max(map(len, PREPARATIONS))
    lines = [f"  {name:<{width}}  {(one.__doc__ or '').strip()}" for name, one in PREPARATIONS.items()]
    head = f"usage: mllm prepare NAME ...      mllm prepare NAME --help\n\n{__doc__}\n\nnames:\n"
    return head + "\n".join(lines)


def _parsed(parser: Parser, argv: list[str], *, out: bool = False) -> argparse.Namespace:
    if out:
        parser.add_argument("--out", required=True, help="the file to write: .jsonl (a row a line) or .json (an array)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there already")
    parser.add_argument(
        "--url", action="append", default=[], help="fetch this first, into the folder of the input; may be repeated"
    )
    parser.add_argument("--sha256", action="append", default=[], help="what the fetched file must have, one a --url")
    arguments = parser.parse_args(argv)
    if len(arguments.sha256) not in (0, len(arguments.url)):
        raise UsageError(f"--sha256 is given {len(arguments.sha256)} times for {len(arguments.url)} times --url")
    return arguments


def _named_path(text: str) -> tuple[str, str]:
    name, sign, path = text.partition("=")
    if not (name and sign and path):
        raise argparse.ArgumentTypeError(f"{text!r}: expected SET=PATH, as NWPU=NWPU-RESISC45.zip")
    return name, path


def _fetch(arguments: argparse.Namespace, folder: Path, *, unpacked: bool = True) -> None:
    """Every ``--url`` into ``folder``, archives unpacked there where ``unpacked``."""
    from mllm.utils.archives import is_archive, unpack
    from mllm.utils.download import download, name_of
    from mllm.utils.storage import resolve_path

    folder = Path(resolve_path(folder))
    for number, url in enumerate(arguments.url):
        path = download(url, folder / name_of(url), arguments.sha256[number] if arguments.sha256 else None)
        print(f"fetched {path}")
        if unpacked and is_archive(path):
            written, kept = unpack(path, folder, overwrite=arguments.overwrite)
            print(f"unpacked {path}: {written} files, {kept} were there")


def _write(arguments: argparse.Namespace, lines: Lines, kind: str, **options: str) -> None:
    from mllm.dataset.prepare.output import check_outputs, write_rows
    from mllm.utils.storage import resolve_path

    path = resolve_path(arguments.out)
    check_outputs([path], overwrite=arguments.overwrite, sources=lines.sources)
    count = write_rows(path, lines.rows, lines.total)
    print(f"wrote {path}: {count} rows{_counts(lines.dropped, '; dropped: ')}")
    more = "".join(f", {key}={value!r}" for key, value in options.items())
    print(f"read it with dict(type={kind!r}, path={path!r}, image_root=...{more})")


def _print_rs4(report: RS4Report) -> None:
    for path, (written, kept) in report.unpacked.items():
        print(f"unpacked {path}: {written} images, {kept} were there")
    print(f"records of other sets dropped: {sum(report.dropped.values())}{_counts(report.dropped, ' – ')}")
    if report.without_image:
        print(f"records without their image dropped: {_counts(report.without_image)}")
    splits = list(next(iter(report.table.values())))
    print(f"{'':<8}" + "".join(f"{split:>20}" for split in splits) + f"{'all':>20}")
    print(f"{'':<8}" + f"{'records':>11}{'images':>9}" * (len(splits) + 1))
    rows = {**report.table, "all": {s: _sum(row[s] for row in report.table.values()) for s in splits}}
    for name, row in rows.items():
        cells = [*row.values(), _sum(row.values())]
        print(f"{name:<8}" + "".join(f"{records:>11}{images:>9}" for records, images in cells))
    for path in report.files:
        print(f"wrote {path}")


def _sum(pairs: object) -> tuple[int, int]:
    records, images = zip(*pairs, strict=True)
    return sum(records), sum(images)


def _counts(counted: dict[str, int], lead: str = "") -> str:
    return lead + ", ".join(f"{name} {count}" for name, count in sorted(counted.items())) if counted else ""
