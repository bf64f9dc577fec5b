# Small LLaVA, stage 2: instructions of many kinds, no referring expressions with boxes; what comes out ships.
# Two CPU cores, about 40 minutes; starts from stage 1.
_base_ = [
    "_base_/dataset/drawn_instructions.py",
    "_base_/model/llava_toy.py",
    "_base_/train/pretrain_toy_cpu.py",
]

model_args = dict(pretrained="work_dirs/toy_llava_stage1")
training_args = dict(output_dir="work_dirs/toy_llava_stage2", lr_scheduler_type="cosine")
