# Captions with boxes on Flickr30k Entities with LLaVA-1.5-7B, LoRA; 8 × 40 GB, accelerate_config/ddp.yaml.
_base_ = ["_base_/dataset/flickr30k.py", "_base_/model/llava_v1_5_7b_lora.py", "_base_/train/lora_bf16.py"]

training_args = dict(output_dir="work_dirs/flickr30k_llava_v1_5_7b_lora", do_eval=True, do_predict=True)
