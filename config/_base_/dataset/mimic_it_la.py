# MIMIC-IT, the LLaVA part (LA: complex reasoning) with its in-context examples; VizWiz-Captions' validation as a test.
_root = "{{$MLLM_DATA:data}}/mimic_it"
_vizwiz = "{{$MLLM_DATA:data}}/vizwiz"

data_args = dict(
    train=dict(
        type="MIMICIT",
        instructions=f"{_root}/LACR_T2T_instructions.json",
        images=f"{_root}/LA.json",
        context=f"{_root}/LACR_T2T_train.json",
    ),
    test=dict(
        dataset=dict(type="VizWizCaption", path=f"{_vizwiz}/annotations/val.json", image_root=f"{_vizwiz}/val"),
        evaluators=[dict(type="CaptionEvaluator")],
    ),
)
