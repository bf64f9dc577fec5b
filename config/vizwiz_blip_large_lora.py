# VizWiz-Captions with BLIP large and LoRA (r 8, alpha 32) on the decoder's query and value; 1 GPU with 24 GB.
_base_ = ["_base_/dataset/vizwiz_captions.py", "_base_/model/blip_large_lora.py", "_base_/train/captions_bf16.py"]

training_args = dict(output_dir="work_dirs/vizwiz_blip_large_lora", learning_rate=1e-4)
