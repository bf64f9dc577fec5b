data_args = dict(
    train=dict(
        type='ConcatDataset',
        datasets=[
            dict(
                type='DrawnConversation',
                count=26000,
                split='stage2b_points',
                tasks=[
                    dict(
                        type='DrawnPointing',
                        turns=5,
                        relational_share=0.8,
                        questions=['<image> Point at <expr>.', '<image> Where is the middle of <expr>?'],
                    ),
                    dict(type='DrawnVQA', questions=['<image> <question>']),
                ],
            ),
            dict(
                type='DrawnConversation',
                count=5000,
                split='stage2b_others',
                tasks=[
                    dict(type='DrawnOthers', turns=2, relational_share=0.8),
                    dict(type='DrawnVQA', questions=['<image> <question>']),
                ],
            ),
            dict(
                type='DrawnConversation',
                count=2000,
                split='stage2b_boxes',
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
                count=2000,
                split='stage2b_descriptions',
                tasks=[
                    dict(
                        type='DrawnREG',
                        turns=3,
                        questions=['<image> Describe <objs>.', '<image> What is at <objs>?'],
                    ),
                    dict(type='DrawnVQA', questions=['<image> <question>']),
                ],
            ),
            dict(
                type='DrawnGroundedCaption',
                count=3000,
                split='stage2b_captions',
                questions=['<image> Describe the picture and give the box of each object.'],
            ),
        ],
    ),
)
model_args = dict(type='LLaVA', pretrained='work_dirs/toy_llava_stage2', freeze=[])
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
    learning_rate=0.001,
    adam_beta2=0.98,
    weight_decay=0.01,
    max_grad_norm=1.0,
    warmup_steps=50,
    bf16=True,
    use_cpu=True,
    seed=0,
    logging_steps=100,
    save_strategy='steps',
    save_steps=1000,
    save_total_limit=1,
    output_dir='work_dirs/toy_llava_stage2b',
    lr_scheduler_type='cosine',
    overwrite_output_dir=True,
)
