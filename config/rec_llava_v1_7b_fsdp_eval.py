# Scores what rec_llava_v1_7b_fsdp.py trained on all RefCOCO/+/g test sets; 1 GPU with 24 GB or more.
_base_ = ["rec_llava_v1_7b_fsdp.py", "_base_/train/eval_only.py"]

model_args = dict(pretrained="work_dirs/rec_llava_v1_7b_fsdp")
training_args = dict(do_eval=False, output_dir="work_dirs/rec_llava_v1_7b_fsdp_eval")
