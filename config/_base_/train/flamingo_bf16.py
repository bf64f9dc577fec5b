# Otter's schedule: 1e-5, cosine, weight decay 0.1 on the cross-attention alone.
training_args = dict(
    do_train=True,
    do_eval=True,
    per_device_train_batch_size=4,
    per_device_eval_batch_size=16,
    num_train_epochs=3,
    learning_rate=1e-5,
    weight_decay=0.1,
    warmup_steps=0.01,
    lr_scheduler_type="cosine",
    bf16=True,
    gradient_checkpointing=True,
    logging_steps=10,
    save_strategy="steps",
    save_steps=2000,
    save_total_limit=2,
    dataloader_num_workers=8,
)
