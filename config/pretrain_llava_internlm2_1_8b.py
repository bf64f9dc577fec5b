# Stage 1 of LLaVA over InternLM2 1.8B: projector alone on 558k pairs; 8 × 24 GB, accelerate_config/zero2.yaml.
# What it leaves is projector and mllm_tune.json; stage 2 starts from it.
_base_ = [
    "_base_/dataset/llava_pretrain_558k.py",
    "_base_/model/llava_internlm2_1_8b.py",
    "_base_/train/lora_bf16.py",
]

conversation = dict(template="plain")
tune = dict(freeze=["vision", "language"], save="trained")
training_args = dict(
    output_dir="work_dirs/pretrain_llava_internlm2_1_8b",
    per_device_train_batch_size=32,
    learning_rate=1e-3,
    mm_projector_lr=None,
)
