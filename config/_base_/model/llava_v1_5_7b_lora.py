# LLaVA v1.5 7B with LoRA on the language model's linear layers, projector trained whole (LLaVA's own LoRA recipe).
_base_ = ["llava_v1_7b.py"]
tune = dict(lora=dict(r=128, alpha=256, dropout=0.05, modules_to_save=["projector"]))
