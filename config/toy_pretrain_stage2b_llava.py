# Small LLaVA, stage 2, second part: the same instructions and one more kind; what comes out ships.
# Two CPU cores, about 11 minutes; starts from the first part.
_base_ = [
    "_base_/dataset/drawn_instructions_2.py",
    "_base_/model/llava_toy.py",
    "_base_/train/pretrain_toy_cpu.py",
]

model_args = dict(pretrained="work_dirs/toy_llava_stage2")
training_args = dict(
    output_dir="work_dirs/toy_llava_stage2b", lr_scheduler_type="cosine", learning_rate=1e-3, warmup_steps=50
)
