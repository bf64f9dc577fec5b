# Pretraining of the small model on two CPU cores.
training_args = dict(
    do_train=True,
    per_device_train_batch_size=16,
    num_train_epochs=1,
    learning_rate=1.5e-3,
    muon_lr=3e-3,
    adam_beta2=0.98,
    weight_decay=0.01,
    max_grad_norm=1.0,
    warmup_steps=100,
    use_cpu=True,
    seed=0,
    logging_steps=100,
    save_strategy="steps",
    save_steps=1000,
    save_total_limit=1,
)
