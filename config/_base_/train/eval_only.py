# No training: score the test sets with the weights as they are.
training_args = dict(do_train=False, do_predict=True, do_multi_predict=True, eval_on_start=False, eval_strategy="no")
