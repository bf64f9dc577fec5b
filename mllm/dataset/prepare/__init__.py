"""From what the authors of a data set publish to the files a run reads: the work behind ``mllm prepare``."""
