# Scores what rec_llava_v1_7b_fsdp.py trained on every RefCOCO/+/g test set; 1 GPU with 24 GB or more.
_base_ = ["rec_llava_v1_7b_fsdp.py"]

model_args = dict(pretrained="work_dirs/rec_llava_v1_7b_fsdp")
training_args = dict(
    output_dir="work_dirs/rec_llava_v1_7b_fsdp_eval",
    do_train=False,
    do_eval=False,
    do_predict=True,
    do_multi_predict=True,
)
