# A small random LLaVA with a real 32,000-piece tokenizer: proves the walk, not the task.
model_args = dict(
    type="LLaVA",
    tokenizer="{{$MLLM_TEST_DATA:../shared/data}}/tokenizers/hf_layout/llama_style_mistral_v1",
    config=dict(
        vision_config=dict(
            model_type="clip_vision_model",
            hidden_size=96,
            intermediate_size=256,
            num_hidden_layers=3,
            num_attention_heads=4,
            image_size=112,
            patch_size=14,
        ),
        text_config=dict(
            model_type="llama",
            vocab_size=32000,
            hidden_size=128,
            intermediate_size=352,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
        ),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        tie_word_embeddings=True,
    ),
)
tune = dict(freeze=[])
conversation = dict(
    template="vicuna_v1.1",
    formatter=dict(type="PlainFormatter"),
    transforms=[dict(type="SquareCanvas"), dict(type="Resize", size=112)],
    max_length=512,
)
generation = dict(max_new_tokens=48)
