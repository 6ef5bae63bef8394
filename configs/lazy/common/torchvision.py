"""What torchvision's and timm's weights were trained with."""


def use_torchvision_conventions(model, dataloader):
    """Change a model and its data in place: RGB images, their statistics, strides in the 3x3 convolutions."""
    model.pixel_mean, model.pixel_std = [123.675, 116.280, 103.530], [58.395, 57.120, 57.375]
    model.input_format = dataloader.train.mapper.image_format = "RGB"
    model.backbone.bottom_up.stride_in_1x1 = False
