# Boxes both ways, sentences and instructions in one run: LLaVA-1.5-7B, LoRA; 8 × 80 GB, accelerate_config/ddp.yaml.
_base_ = ["_base_/dataset/grounding_mixture.py", "_base_/model/llava_v1_5_7b_lora.py", "_base_/train/lora_bf16.py"]

training_args = dict(output_dir="work_dirs/mixture_llava_v1_5_7b_lora", do_multi_predict=True)
