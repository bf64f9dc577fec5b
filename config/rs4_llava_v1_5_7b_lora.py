# RS4 (remote sensing captions and questions) with LLaVA-1.5-7B, LoRA r 128; 1 GPU with 80 GB, or 8 with ddp.yaml.
# RS-LLaVA-7B (Bazi et al., 2024) is this recipe; it has not been run here.
_base_ = ["_base_/dataset/rs4.py", "_base_/model/llava_v1_5_7b_lora.py", "_base_/train/lora_bf16.py"]

training_args = dict(
    output_dir="work_dirs/rs4_llava_v1_5_7b_lora",
    do_predict=True,
    do_multi_predict=True,
    train_sampling_strategy="group_by_modality_length",
)
