# Small LLaVA, stage 1: picture -> caption with boxes (template "plain"); every part is trained, none was before.
# Two CPU cores, about 9 minutes; starts from tools/build_toy_llava.py.
_base_ = ["_base_/dataset/drawn_captions.py", "_base_/model/llava_toy.py", "_base_/train/pretrain_toy_cpu.py"]

model_args = dict(pretrained="work_dirs/toy_llava_untrained")
conversation = dict(template=dict(_delete_=True, type="plain"))
training_args = dict(
    output_dir="work_dirs/toy_llava_stage1",
    # Few objects first, in the order of the data sets.
    train_sampling_strategy="sequential",
    lr_scheduler_type="constant_with_warmup",
)
