"""Packaging: configs and the templates of jobs travel inside the package, as ``mllm/_config`` and its siblings."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "mllm" / "__init__.py").read_text(encoding="utf-8")).group(1)
README = HERE / "README.md"

REQUIRED = [
    "torch>=2.6,<2.14",
    "transformers>=5.17,<6",
    "accelerate>=1.10",
    "mmengine>=0.10.7",
    "peft>=0.18",
    "safetensors>=0.4.3",
    "tokenizers>=0.22",
    "sentencepiece>=0.2",
    "jinja2>=3.1",
    "pillow>=10",
    "numpy>=1.26",
    "tqdm>=4.66",
    "psutil>=5.9",
    "tensorboard>=2.15",
]
EXTRAS = {
    "deepspeed": ["deepspeed>=0.16"],
    # Builds from source: pip install --no-build-isolation 'mllm[flash]', with nvcc and a CUDA build of torch.
    "flash": ["flash-attn>=2.6"],
    "quant": ["bitsandbytes>=0.45"],
    "flamingo": ["einops>=0.7"],
    "caption": ["pycocoevalcap>=1.2"],
    "coco": ["pycocotools>=2.0.7"],
    "parquet": ["pyarrow>=14"],
    # boto3 alone: beside s3fs pip searches for minutes.
    "s3": ["boto3>=1.34"],
    "petrel": ["boto3>=1.34"],
    "wandb": ["wandb>=0.19"],
    "trackio": ["trackio>=0.20"],
    "mlflow": ["mlflow>=3"],
    "web": ["gradio>=5"],
    "sweep": ["optuna>=3"],
    "speech": ["pocketsphinx>=5", "soundfile>=0.12"],
    "dev": ["pytest>=8", "hypothesis>=6", "ruff>=0.6", "setuptools>=77"],
}
FOLDERS = {
    "mllm._config": "config",
    "mllm._accelerate_config": "accelerate_config",
    "mllm._cluster": "tools/cluster",
}

setup(
    name="mllm",
    version=VERSION,
    description="Train, evaluate and predict with multimodal language models, grounding included",
    long_description=README.read_text(encoding="utf-8") if README.is_file() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    install_requires=REQUIRED,
    extras_require=EXTRAS,
    packages=[*find_packages(include=["mllm", "mllm.*"]), *FOLDERS],
    package_dir={"mllm": "mllm", **FOLDERS},
    package_data={
        "mllm.assets": ["**/*"],
        "mllm._config": ["*.md", "*.py", "**/*.py"],
        "mllm._accelerate_config": ["*.yaml", "deepspeed/*"],
        "mllm._cluster": ["*.j2"],
    },
    include_package_data=False,
    zip_safe=False,
    entry_points={"console_scripts": ["mllm = mllm.cli.main:main"]},
)
