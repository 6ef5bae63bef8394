"""The fast path: the plain model's numbers and layout, and when it is taken."""

from __future__ import annotations

import copy

import pytest
import torch
from models import randomise_norms_
from torch import nn

from resnet_det import make_resnet
from resnet_det.modeling import fast_path, make_fpn
from resnet_det.modeling.fused import ONEDNN_DTYPES

FAMILY = {
    "R-18 BN": {"depth": 18},
    "R-18 without norm": {"depth": 18, "norm": ""},
    "R-14 FrozenBN": {"depth": 14, "norm": "FrozenBN", "stride_in_1x1": True},
    "R-14 GN": {"depth": 14, "norm": "GN"},
    "ResNeXt": {"depth": 14, "norm": "FrozenBN", "num_groups": 8, "width_per_group": 16},
    "ResNet-D": {"depth": 14, "norm": "FrozenBN", "stem": "deep", "shortcut": "avg_down"},
    "dilated": {"depth": 18, "norm": "FrozenBN", "dilations": (1, 1, 2, 4)},
    "no shortcuts": {"depth": 18, "shortcut": "none"},
    "frozen": {"depth": 18, "freeze_at": 3},
}
PLAIN = {
    "pre-activation": {"preact": True},
    "squeeze-and-excitation": {"se_reduction": 16},
    "stochastic depth": {"stochastic_depth": 0.1},
    "deformable": {"deform_stages": (False, False, False, True)},
}
IMAGE = torch.randn(2, 3, 61, 70, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _on_any_processor(monkeypatch):
    monkeypatch.setattr(fast_path, "_TRAINS_FAST", True)


def features_and_gradients(model):
    x = IMAGE.clone().requires_grad_()
    outputs = model(x)
    generator = torch.Generator().manual_seed(2)
    sum((value.float() * torch.randn(value.shape, generator=generator)).sum() for value in outputs.values()).backward()
    gradients = {f"grad {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    return outputs, gradients | {"grad x": x.grad}


def assert_close(actual, expected, tolerance):
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        assert actual[name].is_contiguous() == value.is_contiguous(), name
        assert (actual[name] - value).norm() <= tolerance * value.norm(), name


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", FAMILY)
def test_the_same_features_gradients_and_statistics(name, training, monkeypatch):
    torch.manual_seed(0)
    fast = make_fpn(make_resnet(**FAMILY[name]), out_channels=32, fuse_type="avg")
    randomise_norms_(fast)
    plain = copy.deepcopy(fast)
    assert fast_path.may_take(fast.train(training), IMAGE)
    features, gradients = features_and_gradients(fast)
    monkeypatch.setattr(fast_path, "may_take", lambda *_: False)
    expected, expected_gradients = features_and_gradients(plain.train(training))
    assert_close(features, expected, 3e-5)
    # An activation within rounding of zero has another derivative in one of them.
    assert_close(gradients, expected_gradients, 0.05)
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[key], value, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(torch.bfloat16 not in ONEDNN_DTYPES, reason="oneDNN has no bfloat16 on this processor")
def test_under_autocast_it_computes_in_bfloat16():
    net = make_resnet(18, norm="FrozenBN").eval()
    randomise_norms_(net)
    with torch.no_grad():
        expected = net(IMAGE)["res5"]
        with torch.autocast("cpu", torch.bfloat16):
            assert fast_path.may_take(net, IMAGE)
            found = net(IMAGE)["res5"]
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() <= 0.05 * expected.norm()


@pytest.mark.parametrize("name", PLAIN)
def test_blocks_with_more_in_them_run_plainly(name):
    assert not fast_path.may_take(make_resnet(18, **PLAIN[name]), IMAGE)


def test_what_makes_a_model_run_plainly():
    net = make_resnet(18)
    assert fast_path.may_take(net, IMAGE)
    assert not fast_path.may_take(net, IMAGE.double())
    assert not fast_path.may_take(net, IMAGE[:0])
    assert not fast_path.may_take(net, IMAGE.as_subclass(type("Own", (torch.Tensor,), {})))
    assert not fast_path.may_take(net, IMAGE.to("meta"))
    with torch.backends.mkldnn.flags(enabled=False):
        assert not fast_path.may_take(net, IMAGE)
    for part in (net, net.stem, net.res3, net.res3[1], net.res3[1].conv2, net.res3[1].conv2.norm):
        for register in ("forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook"):
            with getattr(part, f"register_{register}")(lambda *_: None):
                assert not fast_path.may_take(net, IMAGE), (part, register)
    with nn.modules.module.register_module_forward_pre_hook(lambda *_: None):
        assert not fast_path.may_take(net, IMAGE)
    assert fast_path.may_take(net, IMAGE)
    assert not fast_path.may_take(type("Subclass", (type(net),), {}).from_spec(net.spec), IMAGE)
    net.res5[0].conv1.weight = nn.Parameter(net.res5[0].conv1.weight.double())
    assert not fast_path.may_take(net, IMAGE)


def test_a_patched_class_is_run(monkeypatch):
    net = make_resnet(18)
    conv = type(net.stem.conv1)
    monkeypatch.setattr(conv, "forward", conv.forward)
    assert fast_path.may_take(net, IMAGE)
    plain = conv.forward
    monkeypatch.setattr(conv, "forward", lambda self, x: plain(self, x))
    assert not fast_path.may_take(net, IMAGE)


def test_without_gradients_it_does_not_ask_for_avx512(monkeypatch):
    monkeypatch.setattr(fast_path, "_TRAINS_FAST", False)
    net = make_resnet(18)
    assert not fast_path.may_take(net, IMAGE)
    with torch.no_grad():
        assert fast_path.may_take(net, IMAGE)


def test_on_a_torch_where_nobody_knows_who_watches_it_is_not_taken(monkeypatch):
    monkeypatch.setattr(nn.modules.module, "_has_any_global_hook", None)
    monkeypatch.delattr(nn.modules.module, "_has_any_global_hook")
    monkeypatch.setattr(fast_path, "_WATCHERS", fast_path._find_watchers())
    assert not fast_path.may_take(make_resnet(18), IMAGE)


@pytest.mark.parametrize("kind", ["checkpointed", "plain"])
def test_compiling_with_checkpoints_gives_the_same(kind):
    stages = (True,) * 4 if kind == "checkpointed" else (False,) * 4
    net = make_resnet(18, checkpoint_stages=stages).train()
    randomise_norms_(net)
    expected, expected_gradients = features_and_gradients(copy.deepcopy(net))
    torch._dynamo.reset()
    net.compile(backend="aot_eager", fullgraph=True)
    features, gradients = features_and_gradients(net)
    torch._dynamo.reset()
    assert_close(features, expected, 3e-5)
    assert_close(gradients, expected_gradients, 0.05)
