"""What tools/lazyconfig_train_net.py reads, and the schedules of COCO: 1x is 90,000 iterations of 16 images."""

import torch
from detectron2.config import LazyCall as L
from detectron2.solver import WarmupParamScheduler
from detectron2.solver.build import get_default_optimizer_params
from fvcore.common.param_scheduler import MultiStepParamScheduler

train = {
    "output_dir": "./output",
    "init_checkpoint": "",
    "max_iter": 90000,
    "amp": {"enabled": False, "dtype": "float16"},
    "ddp": {"forward_sync_buffers": False},
    "checkpointer": {"period": 5000, "max_to_keep": 100},
    "eval_period": 5000,
    "log_period": 20,
    "device": "cuda",
}

optimizer = L(torch.optim.SGD)(
    params=L(get_default_optimizer_params)(weight_decay_norm=0.0), lr=0.02, momentum=0.9, weight_decay=1e-4
)


def make_schedule(max_iter, steps, *, warmup_length=1000, warmup_factor=0.001):
    """A learning rate that falls to a tenth at each of ``steps``, as a factor."""
    return L(WarmupParamScheduler)(
        scheduler=L(MultiStepParamScheduler)(
            values=[0.1**number for number in range(len(steps) + 1)], milestones=[*steps, max_iter]
        ),
        warmup_length=warmup_length / max_iter,
        warmup_method="linear",
        warmup_factor=warmup_factor,
    )


lr_multiplier = make_schedule(90000, [60000, 80000])
