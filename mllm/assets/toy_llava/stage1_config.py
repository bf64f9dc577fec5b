data_args = dict(
    train=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='DrawnGroundedCaption',
                shuffled=True,
                distinct=True,
                count=4800,
                split='stage1_one',
                objects=[1, 1],
            ),
            dict(
                type='DrawnGroundedCaption',
                shuffled=True,
                distinct=True,
                count=8000,
                split='stage1_two',
                objects=[2, 2],
            ),
            dict(
                type='DrawnGroundedCaption',
                shuffled=True,
                distinct=True,
                count=12000,
                split='stage1_four',
                objects=[3, 4],
            ),
            dict(type='DrawnGroundedCaption', count=9600, split='stage1', shuffled=True, short_names=0.5),
        ],
    ),
)
model_args = dict(type='LLaVA', pretrained='work_dirs/toy_llava_untrained')
tune = dict(freeze=[])
conversation = dict(
    template=dict(type='plain'),
    formatter=dict(type='BinTokenFormatter', bins=101),
    transforms=[dict(type='SquareCanvas'), dict(type='Resize', size=96)],
    max_length=512,
)
generation = dict(max_new_tokens=60)
training_args = dict(
    do_train=True,
    per_device_train_batch_size=8,
    num_train_epochs=1,
    learning_rate=0.0015,
    muon_lr=0.003,
    adam_beta2=0.98,
    weight_decay=0.01,
    max_grad_norm=1.0,
    warmup_steps=100,
    use_cpu=True,
    seed=0,
    logging_steps=100,
    save_strategy='steps',
    save_steps=1000,
    save_total_limit=1,
    output_dir='work_dirs/toy_llava_stage1',
    train_sampling_strategy='sequential',
    lr_scheduler_type='constant_with_warmup',
    overwrite_output_dir=True,
)
