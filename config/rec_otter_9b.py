# REC on RefCOCO/+/g with Otter 9B, in Otter's own text; 8 × 80 GB, accelerate_config/ddp.yaml.
_base_ = ["_base_/dataset/rec_ref3_coco.py", "_base_/model/otter_9b.py", "_base_/train/flamingo_bf16.py"]

training_args = dict(output_dir="work_dirs/rec_otter_9b")
