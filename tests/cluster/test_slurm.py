def test_x(slurm):
    print(slurm.call("sinfo"))
