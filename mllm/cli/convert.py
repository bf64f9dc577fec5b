"""Read a checkpoint in any known layout, write it in another, and prove that both compute the same."""

from __future__ import annotations

from pathlib import Path

from mllm.cli.parsing import Parser

DETAILS = """

  --to hf           Hugging Face's hub layout (llava-hf's for LLaVA), whole weights
  --to liuhaotian   LLaVA's own: whole weights, or its LoRA folder where SRC holds adapters
  --to projector    mm_projector.bin
  --to adapter      peft's adapters with the other trained tensors, loadable as model_args.pretrained
  --to merged       whole weights with the adapters merged in

SRC is a run or checkpoint of mllm, a folder in Hugging Face's or LLaVA's own layout (whole, LoRA, mm_projector.bin),
an InternLM2 language model, XTuner's iter_N.pth or its converted folder. What was frozen in a foreign one is taken from
--base and --tower. DST must not exist. Nothing is kept unless each tensor lands and the logits are the same when DST is
read back. Options:"""


def main(argv: list[str]) -> int:
    """Convert, and print what was read, written and by how much both differ."""
    parser = Parser("convert", __doc__ + DETAILS)
    parser.add_argument("source", metavar="SRC")
    parser.add_argument("target", metavar="DST")
    parser.add_argument("--to", required=True, metavar="LAYOUT", help="hf, liuhaotian, projector, adapter or merged")
    parser.add_argument("--base", metavar="DIR", help="the language model (or whole model) below LoRA or projector")
    parser.add_argument("--tower", metavar="DIR", help="the CLIP or SigLIP of a checkpoint that holds none")
    parser.add_argument("--lora-alpha", type=float, metavar="X", help="of an iter_N.pth that does not tell it")
    parser.add_argument("--dtype", default="float32", help="type of the weights: float32, bfloat16, float16")
    words = parser.parse_args(argv)
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    from mllm.models.foreign.convert import Options, convert
    from mllm.utils.logging import setup_logging

    setup_logging()
    disable_progress_bar()
    set_verbosity_error()
    options = Options(words.base, words.tower, words.lora_alpha, words.dtype)
    for line in convert(Path(words.source), Path(words.target), words.to, options):
        print(line)
    return 0
