# LoRA in bf16 with LLaVA's schedule; data parallel (accelerate_config/ddp.yaml) or ZeRO 2.
training_args = dict(
    do_train=True,
    per_device_train_batch_size=16,
    per_device_eval_batch_size=16,
    num_train_epochs=1,
    learning_rate=2e-4,
    mm_projector_lr=2e-5,
    weight_decay=0.0,
    warmup_steps=0.03,
    lr_scheduler_type="cosine",
    bf16=True,
    gradient_checkpointing=True,
    logging_steps=10,
    save_strategy="steps",
    save_steps=1000,
    save_total_limit=2,
    dataloader_num_workers=8,
)
