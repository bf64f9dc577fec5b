# Stage 2 of LLaVA over InternLM2 1.8B: language model and projector trained whole; 8 × 80 GB, zero2.yaml.
_base_ = [
    "_base_/dataset/llava_instruct_150k.py",
    "_base_/model/llava_internlm2_1_8b.py",
    "_base_/train/full_bf16_fsdp.py",
]

training_args = dict(
    output_dir="work_dirs/finetune_llava_internlm2_1_8b_zero2",
    init_from="work_dirs/pretrain_llava_internlm2_1_8b",
    do_eval=False,
    num_train_epochs=1,
    train_sampling_strategy="group_by_modality_length",
)
