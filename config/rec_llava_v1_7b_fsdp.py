# REC on RefCOCO/+/g with LLaVA 7B, full fine-tuning; 8 GPUs with 80 GB, accelerate_config/fsdp.yaml.
# Reference: Shikra-7B reaches Acc@0.5 87.0 on RefCOCO val (arXiv 2306.15195); this recipe has not been run here.
_base_ = ["_base_/dataset/rec_ref3_coco.py", "_base_/model/llava_v1_7b.py", "_base_/train/full_bf16_fsdp.py"]

training_args = dict(output_dir="work_dirs/rec_llava_v1_7b_fsdp")
