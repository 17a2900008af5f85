"""The options of `joyedit run`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from joyedit.job.sizes import FitName
from joyedit.job.source.layouts.choice import LayoutName
from joyedit.job.spec import (
    AttentionName,
    FormatName,
    MetadataName,
    OffloadName,
    PanoramaName,
    PrecisionName,
    SpeedName,
    SwitchName,
    WriteName,
)
from joyedit.options.option import option
from joyedit.runtime.parallel.layout import ParallelName

DeviceName = Literal["auto", "cuda", "mps", "cpu"]
DtypeName = Literal["auto", "bf16", "fp32"]
ScheduleWish = Literal["auto", "original", "diffusers"]
EngineName = Literal["local", "ray"]
JsonName = Literal["new", "all"]


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """The options of `joyedit run`. None stands for an option that was not given."""

    source: tuple[str, ...]
    """A manifest, folders and pictures, or `-` for standard input."""
    output: Path = option(
        Path("edited"), "-o", "--output", metavar="DIR",
        help="The folder for the edited pictures; with one picture as SOURCE also the name of a file, such as new.png; "
        "with --engine ray also the address of an object store, such as s3://bucket/prefix.",
    )  # fmt: skip
    model: str | None = option(
        None, "-m", "--model", "--model-path", "--ckpt-root", metavar="PATH|HUB-ID", envvar="JOYEDIT_MODEL",
        help="The checkpoint: a folder, a name on the Hugging Face hub, or nano.", show_default=False,
    )  # fmt: skip
    dit: str | None = option(
        None, "--dit", metavar="PATH", help="A file or folder of the DiT, in place of the one of --model."
    )
    encoder: str | None = option(
        None, "--encoder", metavar="PATH",
        help="A file or folder of the text encoder; with GGUF also TEXT,MMPROJ: two files with a comma.",
    )  # fmt: skip
    vae: str | None = option(None, "--vae", metavar="PATH", help="A file or folder of the VAE.")
    tokenizer: str | None = option(
        None, "--tokenizer", metavar="DIR", help="The folder of the tokenizer, for files of weights that bring none."
    )
    prompt: str | None = option(
        None, "-p", "--prompt", metavar="TEXT", help="The instruction for items without one of their own."
    )
    lora: tuple[str, ...] = option(
        (), "--lora", metavar="FILE[:SCALE]", help="A LoRA for all items, and how strong it is; may be repeated."
    )
    steps: int | None = option(
        None, "--steps", "--num-inference-steps", least=1, metavar="N", help="Denoising steps. [default: 40]"
    )
    guidance_scale: float | None = option(
        None, "--guidance-scale", metavar="X", help="Guidance; 1 or less turns it off. [default: 4.0]"
    )
    seed: int | None = option(None, "--seed", metavar="N", help="Seed of the noise. [default: 42]")
    negative_prompt: str | None = option(
        None, "--neg-prompt", "--negative-prompt", metavar="TEXT",
        help="A text that guidance leads away from. [default: empty]",
    )  # fmt: skip
    basesize: int | None = option(
        None, "--basesize", metavar="256|512|768|1024",
        help="Size of the result: as many pixels as a square with this side. [default: 1024]",
    )  # fmt: skip
    size: str | None = option(
        None, "--size", metavar="SIZE",
        help="Size of the result: input (that of the picture), bucket (what the model makes), 1920x1080, or "
        "long=2048. [default: input]",
    )  # fmt: skip
    fit: FitName | None = option(
        None, "--fit",
        help="How a picture is fitted to what the model makes: crop cuts off edges, pad keeps the whole picture with "
        "reflections around it, stretch changes its proportions; auto loses least. [default: auto]",
    )  # fmt: skip
    keep_unedited: bool = option(
        False, "--keep-unedited",
        help="Lay the picture's own pixels where the edit changed nothing, so that a large photo stays sharp there.",
    )  # fmt: skip
    register: bool = option(False, "--register", help="Undo a small shift or zoom of the result against its picture.")
    panorama: PanoramaName = option(
        "whole", "--panorama",
        help="How a picture beyond 4:1 goes through: whole (small and padded), or parts that overlap and are joined.",
    )  # fmt: skip
    mask: str | None = option(
        None, "--mask", metavar="FILE",
        help="A picture of the same proportions that says what may change: white may, black keeps the picture's own "
        "pixels. For items without a mask of their own.",
    )  # fmt: skip
    batch_size: str = option(
        "auto", "--batch-size", metavar="auto|N", help="Items that go through the networks together."
    )
    device: DeviceName = option("auto", "--device", help="Where to compute; auto is cuda or cpu.")
    gpus: str | None = option(
        None, "--gpus", metavar="all|N|LIST",
        help="GPUs that share the work, each with a process of its own: all, a number, or indices such as 0,2. "
        "[default: 1]",
    )  # fmt: skip
    parallel: ParallelName = option(
        "auto", "--parallel",
        help="How several GPUs share the work: data (each its own items), guidance or sequence (they make each picture "
        "together); auto is data unless there are fewer items than GPUs.",
    )  # fmt: skip
    engine: EngineName = option(
        "local", "--engine",
        help="What runs the work: local is this machine; ray is a Ray cluster, with --gpus of its GPUs (all of them by "
        "default; needs joyedit[ray]).",
    )  # fmt: skip
    dtype: DtypeName = option("auto", "--dtype", help="Number format; auto is bf16 on a GPU, fp32 on the CPU.")
    precision: PrecisionName = option(
        "exact", "--precision",
        help="Numbers of the DiT's products: exact is --dtype; fp8 (Ada, Hopper, Blackwell) and int8 (other GPUs) take "
        "half the memory and less time, and change pictures a little. On a CPU they are emulated, which is slower.",
    )  # fmt: skip
    attention: AttentionName = option(
        "auto", "--attention", help="Attention kernel; auto measures the kernels on the GPU once and takes the fastest."
    )
    fused: SwitchName = option(
        "auto",
        "--fused",
        help="Use joyedit's own Triton kernels; auto uses them on a GPU where their results are right.",
    )
    compile: SwitchName = option(
        "auto",
        "--compile",
        help="Compile the DiT's blocks; auto does it on a GPU without fused kernels, for long runs.",
    )
    memory: str = option(
        "auto", "--memory", metavar="auto|SIZE",
        help="Memory of the GPU that joyedit may use, for example 22GB; weights that do not fit pass through it.",
    )  # fmt: skip
    offload: OffloadName = option(
        "auto",
        "--offload",
        help="What passes through the GPU: auto is by plan, none nothing, encoder the text encoder, blocks all layers.",
    )
    schedule: ScheduleWish = option(
        "auto", "--schedule", help="Variant of the noise schedule; auto takes the checkpoint's."
    )
    speed: SpeedName = option(
        "exact", "--speed",
        help="What steps may leave out: exact computes everything, high loses little, max more; --dry-run tells what, "
        "docs/performance.md how much is gained and lost.",
    )  # fmt: skip
    reuse: str | None = option(
        None, "--reuse", metavar="auto|off|X",
        help="Reuse a step's blocks where the first block changed by less than X, 0 to 1; auto is the calibrated "
        "threshold. [default: as --speed says]",
    )  # fmt: skip
    reuse_order: int | None = option(
        None, "--reuse-order", least=0, most=2, metavar="0|1|2",
        help="How a reused step is predicted: 0 keeps the last computed one, 1 takes a line through two, 2 a parabola "
        "through three. [default: as --speed says]",
    )  # fmt: skip
    guidance_reuse: str | None = option(
        None, "--guidance-reuse", metavar="off|N|LOW:HIGH",
        help="Compute the branch without the instruction only every N steps, or at noise levels from LOW to HIGH (0 to "
        "1), and keep its difference meanwhile. [default: as --speed says]",
    )  # fmt: skip
    regions: str | None = option(
        None, "--regions", metavar="auto|off|LEVEL",
        help="Compute what is edited, and take the rest from the picture: patches whose prediction lies within LEVEL "
        "of it, 0 to 2; auto is the calibrated level. [default: as --speed says]",
    )  # fmt: skip
    shard: str | None = option(
        None, "--shard", metavar="I/N|auto",
        help="Edit only the shard I of N, into a folder of its own below DIR (see joyedit merge); auto takes I and N "
        "from SLURM or torchrun.",
    )  # fmt: skip
    limit: int | None = option(None, "--limit", least=1, metavar="N", help="Stop after the first N items.")
    exclude: tuple[str, ...] = option(
        (), "--exclude", metavar="GLOB", help="Leave out files and folders of SOURCE by name or path; may be repeated."
    )
    dry_run: bool = option(
        False, "-n", "--dry-run", help="Print what the run would do; load no model and write nothing."
    )
    recipe: str | None = option(
        None, "--recipe", metavar="FILE|NAME", help="Settings and an instruction template (see joyedit recipes)."
    )
    values: tuple[str, ...] = option(
        (), "--set", metavar="NAME=VALUE",
        help="A parameter of the recipe, or a setting of the picture that is made again; may be repeated.",
    )  # fmt: skip
    name: str | None = option(
        None, "--name", metavar="TEMPLATE",
        help="Names of the edited pictures, such as {stem}_{recipe}_{seed}. [default: {id}]",
    )  # fmt: skip
    seeds: str | None = option(
        None, "--seeds", metavar="N|LIST",
        help="Edit each item with N seeds, from its own seed on, or with those of a list such as 1,2,3.",
    )  # fmt: skip
    sweep: tuple[str, ...] = option(
        (), "--sweep", metavar="KEY=VALUES",
        help="Edit each item with each value of a setting or a recipe's parameter, such as steps=20,40; may be "
        "repeated.",
    )  # fmt: skip
    input: tuple[str, ...] = option(
        (), "--input", metavar="FILE",
        help="With a picture of joyedit as SOURCE: the picture that it was made of, if that lies elsewhere now; may be "
        "repeated.",
    )  # fmt: skip
    layout: LayoutName = option(
        "auto", "--layout",
        help="Layout of a dataset: a file format or a benchmark; auto looks at the files, and manifest and folder read "
        "SOURCE as no dataset.",
    )  # fmt: skip
    split: str | None = option(None, "--split", metavar="NAME|all", help="The split of a dataset, such as train.")
    where: tuple[str, ...] = option(
        (), "--where", metavar="COLUMN=VALUE",
        help="Only rows of a dataset with this value, for example instruction_language=en; may be repeated.",
    )  # fmt: skip
    image_root: str | None = option(
        None, "--image-root", metavar="DIR",
        help="The folder that a dataset's paths of pictures are relative to. [default: that of the dataset]",
        show_default=False,
    )  # fmt: skip
    chain_turns: bool = option(
        False, "--chain-turns",
        help="Of a dataset with turns in rows (MagicBrush): from turn 2 on, edit the result of the turn before, not "
        "the picture that the dataset holds.",
    )  # fmt: skip
    map: tuple[str, ...] = option(
        (), "--map", metavar="KEY=COLUMN",
        help="Read a column of the manifest or dataset as this key, for example image=source_img; may be repeated.",
    )  # fmt: skip
    ignore_columns: tuple[str, ...] = option(
        (), "--ignore-columns", metavar="NAMES|all",
        help="Columns (or keys) of the manifest to pass over, with commas between them; all: those that joyedit does "
        "not know.",
    )  # fmt: skip
    keep_columns: tuple[str, ...] = option(
        (), "--keep-columns", metavar="NAMES|all", help="Columns to carry into results.jsonl, as 'columns'."
    )
    text_to_image: bool = option(
        False, "--text-to-image", help="An item whose picture is left empty is made from its instruction alone."
    )
    skip_missing: bool = option(
        False, "--skip-missing",
        help="Start although some pictures of the manifest are missing; their items fail (missing_picture).",
    )  # fmt: skip
    format: FormatName | None = option(
        None, "--format",
        help="Format of the edited pictures; same is that of each picture. heic needs an extra (joyedit[heif]). "
        "[default: png, or that of the file named with -o]",
    )  # fmt: skip
    quality: int | None = option(
        None, "--quality", least=1, most=100, metavar="N",
        help="Quality of JPEG, WebP, AVIF and HEIC, 1 to 100. [default: that of the picture if both are JPEG, else 95; "
        "90 for AVIF, 60 for HEIC]",
    )  # fmt: skip
    write: WriteName = option(
        "folder", "--write", any_case=True,
        help="What is written: folder (loose pictures), webdataset or parquet (shards of originals, edits and all "
        "fields), imagefolder (of Hugging Face), or what the scorer of gedit, imgedit, kris or spatialedit reads.",
    )  # fmt: skip
    shard_size: int | None = option(
        None, "--shard-size", least=1, metavar="N", help="Items of a shard of --write webdataset|parquet. "
        "[default: 1000]", show_default=False,
    )  # fmt: skip
    write_partial: bool = option(
        False, "--write-partial",
        help="Also write shards of which some items failed, as NAME.partial.tar or NAME.partial.parquet.",
    )  # fmt: skip
    metadata: MetadataName = option(
        "keep", "--metadata", help="What a result keeps of its picture's EXIF and XMP; no-gps is all but the place."
    )
    overwrite: bool = option(False, "--overwrite", help="Edit all items again, also those that are done in DIR.")
    update: bool = option(
        False, "--update", help="Replace the finished pictures in DIR that differ from what is asked now."
    )
    retry_failed: bool = option(
        False, "--retry-failed", help="Edit only the items that failed in an earlier run into DIR."
    )
    trust_journal: bool = option(
        False, "--trust-journal",
        help="Resume faster: compare sizes and times of files, and do not read them again.",
    )  # fmt: skip
    max_duration: str | None = option(
        None, "--max-duration", metavar="TIME",
        help="Stop after this time, for example 8h or 1h30m; exit code 10 if items are left.",
    )  # fmt: skip
    max_pixels: int | None = option(
        None, "--max-pixels", least=1, metavar="N", help="Refuse larger pictures. [default: 178000000]",
        show_default=False,
    )  # fmt: skip
    read_timeout: str | None = option(
        None, "--read-timeout", metavar="TIME", help="Give up a picture that takes longer to read. [default: 2m]"
    )
    json: JsonName | None = option(
        None, "--json", metavar="[=all]", bare="new",
        help="Print records as JSON lines on stdout; =all also those of items that were done before.",
    )  # fmt: skip
    metrics: Path | None = option(
        None, "--metrics", metavar="FILE",
        help="Write figures of the run to FILE (.prom) every 10 s, for the textfile collector of node_exporter "
        "(Prometheus; needs joyedit[metrics]).", show_default=False,
    )  # fmt: skip
    no_page: bool = option(
        False, "--no-page", help="Make no page (index.html) of the run; joyedit view makes it later."
    )
    quiet: bool = option(False, "-q", "--quiet", help="Print nothing but errors.")
    verbose: bool = option(False, "-v", "--verbose", help="Print each finished item, and tracebacks of errors.")
