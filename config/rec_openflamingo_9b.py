# REC on RefCOCO/+/g with OpenFlamingo 9B (perceiver, cross-attention, rows of added tokens trained); 8 × 80 GB, DDP.
_base_ = ["_base_/dataset/rec_ref3_coco.py", "_base_/model/openflamingo_9b.py", "_base_/train/flamingo_bf16.py"]

training_args = dict(output_dir="work_dirs/rec_openflamingo_9b")
