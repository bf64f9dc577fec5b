# REC on RefCOCO/+/g and Visual Genome's regions with LLaVA 7B, full fine-tuning; 8 GPUs with 80 GB; not run here.
_base_ = ["_base_/dataset/rec_ref4_gnome.py", "_base_/model/llava_v1_7b.py", "_base_/train/full_bf16_fsdp.py"]

training_args = dict(output_dir="work_dirs/rec_gnome_llava_v1_7b_fsdp")
