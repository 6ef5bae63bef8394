"""The table of depths, and what is wrong with a spec."""

from __future__ import annotations

import pytest

from resnet_det.depths import DEPTHS, find_depth
from resnet_det.specs import ResNetSpec, check_resnet_spec


def make_spec(**changes):
    return ResNetSpec(**{"block": "bottleneck", "stage_blocks": (3, 4, 6, 3), **changes})


@pytest.mark.parametrize("depth", DEPTHS)
def test_depth_counts_weighted_layers(depth):
    convolutions = {"basic": 2, "bottleneck": 3}[DEPTHS[depth].block]
    assert sum(DEPTHS[depth].stage_blocks) * convolutions + 2 == depth


@pytest.mark.parametrize(
    ("block", "outs", "widths"),
    [("basic", [64, 128, 256, 512], [None] * 4), ("bottleneck", [256, 512, 1024, 2048], [64, 128, 256, 512])],
)
def test_channels_and_strides_follow_the_block(block, outs, widths):
    spec = make_spec(block=block, stage_blocks=(2, 1, 3, 2))
    stages = [spec.blocks_of(name) for name in ("res2", "res3", "res4", "res5")]
    assert [len(stage) for stage in stages] == [2, 1, 3, 2]
    assert [stage[-1].out_channels for stage in stages] == outs
    assert [stage[0].in_channels for stage in stages] == [64, *outs[:-1]]
    assert [stage[0].stride for stage in stages] == [1, 2, 2, 2]
    assert all(block.stride == 1 and block.in_channels == block.out_channels for stage in stages for block in stage[1:])
    assert [stage[0].bottleneck.get("bottleneck_channels") for stage in stages] == widths


def test_a_dilated_stage_keeps_its_resolution():
    blocks = make_spec(dilations=(1, 1, 1, 2)).blocks_of("res5")
    assert [(block.stride, block.dilation) for block in blocks] == [(1, 2)] * 3


def test_multi_grid_multiplies_the_dilation_of_res5():
    spec = make_spec(dilations=(1, 1, 1, 2), multi_grid=(1, 2, 4))
    assert [block.dilation for block in spec.blocks_of("res5")] == [2, 4, 8]
    assert {block.dilation for block in spec.blocks_of("res4")} == {1}


def test_stages_behind_the_last_output_are_not_built():
    assert make_spec(out_features=("res3", "stem")).built_stages == ("res2", "res3")
    assert make_spec(out_features=("stem",)).built_stages == ()


def test_what_is_given_for_each_stage_follows_their_number():
    for count in range(1, 7):
        spec = make_spec(stage_blocks=(1,) * count)
        assert spec.dilations == (1,) * count
        assert spec.deform_stages == spec.checkpoint_stages == (False,) * count
        assert spec.out_features == spec.stage_names[-1:] == (f"res{count + 1}",)
        assert spec.strides == {"stem": 4, **{f"res{number}": 2**number for number in range(2, count + 2)}}


def test_unknown_depth_names_the_choices():
    with pytest.raises(ValueError, match=r"depth is 35; choose one of .*18, .*50, .*152"):
        find_depth(35)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block": "fancy"}, "block is 'fancy'; choose one of basic, bottleneck"),
        ({"norm": "BatchNorm"}, "norm is 'BatchNorm'; choose one of FrozenBN, BN, SyncBN, GN, LN"),
        ({"out_features": ("res2", "res6")}, "out_features has 'res6'; choose from stem, res2, res3, res4, res5"),
        ({"out_features": ()}, "out_features is empty"),
        ({"out_features": ("res2", "res2")}, "name each only once"),
        ({"freeze_at": 6}, "freeze_at is 6; choose 0 .* to 5"),
        ({"stage_blocks": (3, 4, 6), "dilations": (1, 1, 1, 2)}, "dilations is .*, and there are 3 stages"),
        ({"stage_blocks": (3, 4, 6), "freeze_at": 5}, "freeze_at is 5; choose 0 .nothing. to 4 .stem and res2, res3, "),
        ({"stage_blocks": ()}, "stage_blocks is empty; give the number of blocks of each stage"),
        (
            {"shortcut": "pad", "res2_out_channels": 16, "block": "basic"},
            "shortcut pad .* res2_out_channels is 16, stem_out_channels 64; give at most 16",
        ),
        ({"stage_blocks": (3, 0, 6, 3)}, "stage_blocks is .* at least 1"),
        (
            {"block": "basic", "num_groups": 32},
            "basic blocks .* have num_groups 1 and width_per_group 64, not 32 and 64",
        ),
        ({"in_channels": 0}, "in_channels is 0"),
        (
            {"multi_grid": (1, 2)},
            "multi_grid is .*1, 2.*; give a factor of at least 1 for each of the 3 blocks",
        ),
    ],
)
def test_wrong_specs_say_what_would_be_right(changes, message):
    with pytest.raises(ValueError, match=message):
        make_spec(**changes)


def test_all_problems_are_listed_at_once():
    with pytest.raises(ValueError, match=r"freeze_at is 9.*norm is 'X'"):
        make_spec(norm="X", freeze_at=9)


def test_a_sound_spec_has_no_problems():
    assert check_resnet_spec(make_spec()) == []
