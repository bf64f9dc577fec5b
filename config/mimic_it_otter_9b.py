# MIMIC-IT (several images in context) with Otter 9B, the recipe that Otter is named for; 8 × 80 GB, DDP.
_base_ = ["_base_/dataset/mimic_it_la.py", "_base_/model/otter_9b.py", "_base_/train/flamingo_bf16.py"]

training_args = dict(output_dir="work_dirs/mimic_it_otter_9b", do_eval=False, do_predict=True, num_train_epochs=6)
