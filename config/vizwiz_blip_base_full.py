# VizWiz-Captions with BLIP base, every weight trained; 1 GPU with 24 GB. The best CIDEr of 500 images is kept.
_base_ = ["_base_/dataset/vizwiz_captions.py", "_base_/model/blip_base.py", "_base_/train/captions_bf16.py"]

training_args = dict(output_dir="work_dirs/vizwiz_blip_base_full", learning_rate=1e-5)
