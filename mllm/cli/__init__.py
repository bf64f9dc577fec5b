"""The verbs of the console script ``mllm``, one file each."""
