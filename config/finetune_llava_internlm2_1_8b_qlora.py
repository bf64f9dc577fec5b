# Stage 2 of LLaVA over InternLM2 1.8B: QLoRA on LLaVA-Instruct-150k; 8 × 24 GB, accelerate_config/ddp.yaml.
_base_ = [
    "_base_/dataset/llava_instruct_150k.py",
    "_base_/model/llava_internlm2_1_8b.py",
    "_base_/train/lora_bf16.py",
]

tune = dict(quantize="nf4", double_quant=True, lora=dict(r=512, alpha=256, dropout=0.05, modules_to_save=["projector"]))
training_args = dict(
    output_dir="work_dirs/finetune_llava_internlm2_1_8b_qlora",
    init_from="work_dirs/pretrain_llava_internlm2_1_8b",
    train_sampling_strategy="group_by_modality_length",
)
