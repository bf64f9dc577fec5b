# Otter 9B: OpenFlamingo with MPT-7B, tuned on instructions; starts from OpenFlamingo's checkpoint.
_base_ = ["openflamingo_9b.py"]
model_args = dict(type="Otter")
conversation = dict(template=dict(_delete_=True, type="otter"))
