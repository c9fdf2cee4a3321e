"""Short runs of compiled steps."""


def steps_of(plan=None, **train):
    """Settings of train() for short runs of compiled steps, which torch traces and then runs as they are."""
    plan = {"compile": True, "compile_kwargs": {"backend": lambda graph, _: graph}} | (plan or {})
    return {"max_epochs": 6, "batch_size": 10, "plan_kwargs": plan} | train
