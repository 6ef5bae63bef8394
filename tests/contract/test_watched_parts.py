"""Who listens (hooks), follows operators (modes, tracers) or transforms the model sees what Detectron2's shows."""

from __future__ import annotations

import copy
import io
import pickle
from functools import partial

import pytest
import torch
from contract.pairs import KINDS, assert_equal, images, make_net, make_nets, make_pyramids, run
from detectron2.modeling.backbone import resnet
from fvcore.nn import FlopCountAnalysis
from models import randomise_norms_
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.utils import parameters_to_vector, prune
from torch.utils.flop_counter import FlopCounterMode

import resnet_det.modeling as ours


def keep_copies(seen, name):
    def keep(_, *given):
        tensors = [each for item in given for each in (item if isinstance(item, tuple) else (item,))]
        seen.append((name, [tensor.detach().clone() for tensor in tensors if isinstance(tensor, torch.Tensor)]))

    return keep


def register(model, kind, keep):
    """Hooks of a ``kind`` on every module; ``keep(name)`` makes one."""
    for name, module in model.named_modules():
        if kind == "forward":
            module.register_forward_hook(keep(name))
        elif kind == "pre":
            module.register_forward_pre_hook(keep(name))
        elif name and not any(part in name for part in (".conv", ".shortcut", "top_block")):
            # Detectron2's own blocks raise an error with one on a convolution, whose output they change in place.
            module.register_full_backward_hook(keep(name))


def assert_same_tensors(actual, expected):
    assert [name for name, _ in actual] == [name for name, _ in expected]
    for (name, found), (_, wanted) in zip(actual, expected, strict=True):
        assert len(found) == len(wanted), name
        for one, other in zip(found, wanted, strict=True):
            assert one.stride() == other.stride(), name
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("kind", ["forward", "pre", "backward"])
def test_hooks_on_every_module_see_the_same(kind, norm):
    seen = []
    for model in make_pyramids("bottleneck", norm):
        seen.append([])
        register(model, kind, partial(keep_copies, seen[-1]))
        run(model, images(), training=kind == "backward")
    assert len(seen[0]) > (20 if kind == "backward" else 60)
    assert_same_tensors(seen[1], seen[0])


@pytest.mark.parametrize("kind", KINDS)
def test_global_hooks_see_the_same(kind):
    seen = []
    for model in make_pyramids(kind):
        names = {module: name for name, module in model.named_modules()}
        seen.append([])
        handle = nn.modules.module.register_module_forward_hook(
            lambda module, args, out, names=names, seen=seen[-1]: keep_copies(seen, names[module])(module, args, out)
        )
        with handle:
            run(model, images(), training=False)
    assert len(seen[0]) > 60
    assert_same_tensors(seen[1], seen[0])


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["stem.conv1", "res3.0.conv2", "res4.0.shortcut", "res5.1", "res3.1.conv1.norm"])
def test_hooks_change_what_they_see(name, training):
    results = []
    for net in make_nets():
        net.get_submodule(name).register_forward_hook(lambda _, __, out: out * 2)
        results.append(run(net, images(), training=training))
    assert_equal(results[1], results[0])


def test_what_hooks_and_callers_hold_is_as_in_detectron2s_afterwards():
    """Not copied: whoever holds a tensor finds in it, after the forward pass, what it finds with Detectron2's."""
    held = []
    for model in make_pyramids():
        held.append([])
        for name, module in model.named_modules():
            module.register_forward_hook(
                lambda _, args, out, name=name, held=held[-1]: held.append(
                    (name, [each for each in (*args, out) if isinstance(each, torch.Tensor)])
                )
            )
        with torch.no_grad():
            model.eval()(images())
    assert_same_tensors(held[1], held[0])


def test_features_that_are_held_are_not_overwritten():
    for _, model in (make_nets(), make_pyramids()):
        with torch.no_grad():
            features = model.eval()(images())
            kept = {name: value.clone() for name, value in features.items()}
            model(images() + 1)
        assert_equal(features, kept)


def test_parameters_and_features_lie_as_detectron2s():
    theirs, net = make_pyramids()
    assert all(tensor.is_contiguous() for tensor in (*net.state_dict().values(), *theirs.state_dict().values()))
    parameters_to_vector(net.parameters())
    assert all(parameter.view(-1).numel() == parameter.numel() for parameter in net.parameters())
    prune.l1_unstructured(copy.deepcopy(net).bottom_up.res3[0].conv2, "weight", 0.5)
    for training in (True, False):
        for value in run(net, images(), training=training).values():
            value.view(value.shape[0], -1)


@pytest.mark.parametrize("size", [(64, 96), (32, 32)])  # of the second, res5 is one pixel
def test_layouts_that_a_user_asks_for(size):
    x = images()[..., : size[0], : size[1]]
    for theirs, net in (make_nets(), make_pyramids()):
        for part in ("", "res4" if hasattr(net, "res4") else "fpn_output3"):
            for given in (x, x.to(memory_format=torch.channels_last), images()[..., :64:2]):
                for training in (True, False):
                    assert_equal(run(net, given, training=training), run(theirs, given, training=training))
            for model in (theirs, net):
                model.get_submodule(part).to(memory_format=torch.channels_last)


def test_values_that_are_not_finite_are_passed_on():
    x = images()
    x[0, 0, 10, 10] = torch.nan
    for theirs, net in (make_nets(), make_pyramids()):
        expected, found = run(theirs, x, training=False), run(net, x, training=False)
        assert all(
            torch.equal(found[name].isnan(), value.isnan()) and value.isnan().any() for name, value in expected.items()
        )


def test_saved_and_copied_models(tmp_path):
    _, net = make_pyramids()
    expected = run(net, images(), training=False)
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    torch.save(net.state_dict(), tmp_path / "net.pth")
    other = copy.deepcopy(net)
    for state in (load_file(tmp_path / "net.safetensors"), torch.load(tmp_path / "net.pth")):
        assert all(tensor.is_contiguous() for tensor in state.values())
        for parameter in other.parameters():
            nn.init.zeros_(parameter)
        other.load_state_dict(state)
        assert_equal(run(other, images(), training=False), expected)
    for copied in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert_equal(run(copied, images(), training=False), expected)
        copied.fpn_output3.weight.data.zero_()  # it has weights of its own, and runs with them
        assert run(copied, images(), training=False)["p3"].std() < run(net, images(), training=False)["p3"].std()


def double_backward(net, x):
    x = x.clone().requires_grad_()
    loss = sum(value.square().mean() for value in net(x).values())
    (gradient,) = torch.autograd.grad(loss, x, create_graph=True)
    return torch.autograd.grad(gradient.square().sum(), [p for p in net.parameters() if p.requires_grad])


def function_of(net):
    def loss(parameters, x):
        return sum(v.square().mean() for v in torch.func.functional_call(net, parameters, (x,)).values())

    return loss, dict(net.named_parameters())


def func_grad(net, x):
    loss, parameters = function_of(net)
    return tuple(torch.func.grad(loss)(parameters, x).values())


def func_jvp(net, x):
    return torch.func.jvp(lambda x: net(x)["res5"], (x,), (torch.ones_like(x),))


def func_vmap(net, x):
    return tuple(torch.func.vmap(net)(x[:, None]).values())


def per_sample_gradients(net, x):
    loss, parameters = function_of(net)
    return tuple(torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x[:, None]).values())


def forward_mode(net, x):
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        return tuple(torch.autograd.forward_ad.unpack_dual(net(dual)["res5"]))


def compiled(net, x):
    torch._dynamo.reset()
    return tuple(torch.compile(net, backend="aot_eager", fullgraph=True)(x).values())


def exported(net, x):
    return tuple(torch.export.export(net, (x,)).module()(x).values())


def traced(net, x):
    return tuple(torch.jit.trace(net.requires_grad_(False), x, strict=False)(x).values())


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "transform",
    [
        *(double_backward, func_grad, func_jvp, func_vmap, per_sample_gradients, forward_mode, exported, traced),
        pytest.param(compiled, marks=pytest.mark.long),
    ],
)
def test_transforms_give_the_same(transform, kind):
    results = [transform(net.eval(), images()[..., :32, :32]) for net in make_nets(kind)]
    assert len(results[0]) == len(results[1]) > 0
    for actual, expected in zip(results[1], results[0], strict=True):
        assert (actual - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_a_block_is_traced_symbolically_where_detectron2s_is():
    """Detectron2's Conv2d itself is not: it looks at the size of its input."""
    blocks = []
    for module in (resnet, ours):
        block = make_net(module, "basic", "").res3[1]
        for name in ("conv1", "conv2"):
            torch.manual_seed(1)
            setattr(block, name, nn.Conv2d(32, 32, 3, padding=1))
        blocks.append(torch.fx.symbolic_trace(block))
    x = torch.randn(1, 32, 8, 8)
    assert [node.op for node in blocks[1].graph.nodes] == [node.op for node in blocks[0].graph.nodes]
    torch.testing.assert_close(blocks[1](x), blocks[0](x))


@pytest.mark.parametrize("kind", KINDS)
def test_operations_are_counted_alike(kind):
    counts = []
    for net in make_nets(kind):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            net.eval()(images())
        analysis = FlopCountAnalysis(net, images()).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        counts.append((counter.get_total_flops(), analysis.by_module()))
    assert counts[1] == counts[0]
    assert counts[0][0] > 1e6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_of_another_type_than_its_input_is_an_error(dtype):
    for net in make_nets():
        with pytest.raises(RuntimeError, match=r"should be the same|expected .* to have the same dtype"):
            net.to(dtype)(images())


def test_a_module_moved_to_an_unpickled_stream_is_whole():
    _, net = make_nets()
    stream = io.BytesIO()
    torch.save(net, stream)
    stream.seek(0)
    loaded = torch.load(stream, weights_only=False)
    randomise_norms_(loaded, seed=4)
    net.load_state_dict(loaded.state_dict())
    assert_equal(run(loaded, images(), training=True), run(net, images(), training=True))
