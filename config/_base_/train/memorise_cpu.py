# Small data, many epochs, CPU: a run that should learn its training set by heart.
training_args = dict(
    do_train=True,
    do_eval=True,
    do_predict=True,
    per_device_train_batch_size=23,
    per_device_eval_batch_size=32,
    num_train_epochs=70,
    learning_rate=1e-3,
    weight_decay=0.0,
    warmup_steps=0.03,
    lr_scheduler_type="cosine",
    logging_steps=50,
    eval_strategy="no",
    save_strategy="steps",
    save_steps=250,
    save_total_limit=2,
)
