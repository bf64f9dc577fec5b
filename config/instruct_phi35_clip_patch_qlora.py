# LLaVA-Instruct-150k with Phi-3.5-mini in 4 bits behind CLIP ViT-B/32, 50 vectors of its last layer; 1 × 16 GB.
_base_ = ["_base_/dataset/llava_instruct_150k.py", "_base_/model/phi35_clip_qlora.py", "_base_/train/lora_bf16.py"]

model_args = dict(features="patch")
training_args = dict(
    output_dir="work_dirs/instruct_phi35_clip_patch_qlora",
    per_device_train_batch_size=2,
    max_steps=6000,
    learning_rate=5e-5,
    mm_projector_lr=5e-5,
    lr_scheduler_type="linear",
)
