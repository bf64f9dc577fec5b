data_args = dict(
    train=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='DrawnGroundedCaption',
                shuffled=True,
                questions=['<image> Describe the picture and give the box of each object.'],
                count=14000,
                split='stage2_few',
                objects=[3, 5],
                distinct=True,
                short_names=0.3,
            ),
            dict(
                type='DrawnGroundedCaption',
                shuffled=True,
                questions=['<image> Describe the picture and give the box of each object.'],
                count=16000,
                split='stage2_captions',
                short_names=0.7,
            ),
            dict(
                type='DrawnPointing',
                turns=4,
                questions=['<image> Point at <expr>.', '<image> Where is the middle of <expr>?'],
                count=16000,
                split='stage2_named_points',
                answer='<expr> <points>',
            ),
            dict(
                type='DrawnPointing',
                turns=4,
                questions=['<image> Point at <expr>.', '<image> Where is the middle of <expr>?'],
                count=40000,
                split='stage2_points',
            ),
            dict(
                type='DrawnConversation',
                count=6000,
                split='stage2_others',
                tasks=[
                    dict(type='DrawnOthers', turns=2),
                    dict(type='DrawnVQA', questions=['<image> <question>']),
                ],
            ),
            dict(
                type='DrawnConversation',
                count=7000,
                split='stage2_boxes',
                tasks=[
                    dict(
                        type='DrawnDetection',
                        turns=2,
                        questions=[
                            '<image> Give the box of each <category>.',
                            '<image> Find all boxes of a <category>.',
                        ],
                    ),
                    dict(type='DrawnVQA', questions=['<image> <question>']),
                ],
            ),
            dict(
                type='DrawnConversation',
                count=6000,
                split='stage2_descriptions',
                tasks=[
                    dict(
                        type='DrawnREG',
                        turns=3,
                        questions=['<image> Describe <objs>.', '<image> What is at <objs>?'],
                    ),
                    dict(type='DrawnVQA', questions=['<image> <question>']),
                ],
            ),
        ],
    ),
)
model_args = dict(type='LLaVA', pretrained='work_dirs/toy_llava_stage1')
tune = dict(freeze=[])
conversation = dict(
    template=dict(type='vicuna_v1.1', system=''),
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
    output_dir='work_dirs/toy_llava_stage2',
    lr_scheduler_type='cosine',
    overwrite_output_dir=True,
)
