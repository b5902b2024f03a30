"""The bundled networks as transformers builds them: the originals that ours are held against."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import transformers as hf
from torch import nn

from iftplan.nn.sources.zoo.botnet import attend_


def resnet(
    kind: str, depths: Sequence[int], widths: Sequence[int], classes: int, stem: int = 64
) -> nn.Module:
    return hf.ResNetForImageClassification(
        hf.ResNetConfig(
            layer_type=kind,
            depths=list(depths),
            hidden_sizes=list(widths),
            embedding_size=stem,
            downsample_in_bottleneck=False,
            num_labels=classes,
        )
    )


def _cifar(model: nn.Module) -> nn.Module:
    embedder = model.get_submodule("resnet.embedder")
    large = embedder.get_submodule("embedder.convolution")
    assert isinstance(large, nn.Conv2d)
    stem = nn.Conv2d(3, large.out_channels, kernel_size=3, stride=1, padding=1, bias=False)
    nn.init.kaiming_normal_(stem.weight, mode="fan_out", nonlinearity="relu")
    embedder.get_submodule("embedder").convolution = stem
    embedder.pooler = nn.Identity()
    return model


BASIC = (64, 128, 256, 512)


def resnet50(classes: int = 1000) -> nn.Module:
    return resnet("bottleneck", (3, 4, 6, 3), (256, 512, 1024, 2048), classes)


def _of_stride_one(model: nn.Module, *paths: str) -> nn.Module:
    for path in paths:
        convolution = model.get_submodule(path)
        assert isinstance(convolution, nn.Conv2d)
        assert convolution.stride == (2, 2)
        convolution.stride = (1, 1)
    return model


def gpt(*, layers: int, width: int, heads: int, vocabulary: int = 50257, context: int = 1024) -> nn.Module:
    return hf.GPT2LMHeadModel(
        hf.GPT2Config(
            n_layer=layers,
            n_embd=width,
            n_head=heads,
            n_positions=context,
            vocab_size=vocabulary,
            bos_token_id=vocabulary - 1,
            eos_token_id=vocabulary - 1,
            tie_word_embeddings=True,
            use_cache=False,
            attn_implementation="sdpa",
        )
    )


def bert(*, layers: int, width: int, heads: int) -> nn.Module:
    return hf.BertForMaskedLM(
        hf.BertConfig(
            num_hidden_layers=layers,
            hidden_size=width,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            tie_word_embeddings=True,
            attn_implementation="sdpa",
        )
    )


def vit(*, layers: int, width: int, heads: int, patch: int, side: int, classes: int) -> nn.Module:
    return hf.ViTForImageClassification(
        hf.ViTConfig(
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            intermediate_size=4 * width,
            image_size=side,
            patch_size=patch,
            num_labels=classes,
            attn_implementation="sdpa",
        )
    )


ORIGINALS: dict[str, Callable[[], nn.Module]] = {
    "resnet18-cifar": lambda: _cifar(resnet("basic", (2, 2, 2, 2), BASIC, 100)),
    "resnet34-cifar": lambda: _cifar(resnet("basic", (3, 4, 6, 3), BASIC, 100)),
    "resnet8-cifar": lambda: _cifar(resnet("basic", (1, 1, 1), (8, 16, 32), 10, stem=8)),
    "resnet20-cifar": lambda: _cifar(resnet("basic", (3, 3, 3), (16, 32, 64), 10, stem=16)),
    "mobilenetv2-cifar": lambda: _of_stride_one(
        hf.MobileNetV2ForImageClassification(
            hf.MobileNetV2Config(num_labels=100, depth_multiplier=1.0, classifier_dropout_prob=0.0)
        ),
        "mobilenet_v2.conv_stem.first_conv.convolution",
        "mobilenet_v2.layer.0.conv_3x3.convolution",
    ),
    "mobilevit-s-cifar": lambda: _of_stride_one(
        hf.MobileViTForImageClassification(hf.MobileViTConfig(num_labels=100, image_size=32)),
        "mobilevit.conv_stem.convolution",
        "mobilevit.encoder.layer.1.layer.0.conv_3x3.convolution",
    ),
    "botnet50-cifar": lambda: attend_(_cifar(resnet50(100)), (8, 8)),
    "resnet18": lambda: resnet("basic", (2, 2, 2, 2), BASIC, 1000),
    "resnet34": lambda: resnet("basic", (3, 4, 6, 3), BASIC, 1000),
    "resnet50": resnet50,
    "mobilenetv2": lambda: hf.MobileNetV2ForImageClassification(
        hf.MobileNetV2Config(num_labels=1000, depth_multiplier=1.0)
    ),
    "mobilevit-s": lambda: hf.MobileViTForImageClassification(
        hf.MobileViTConfig(num_labels=1000, image_size=256)
    ),
    "botnet50": lambda: attend_(resnet50()),
    "bert-small": lambda: bert(layers=4, width=512, heads=8),
    "gpt3-small": lambda: gpt(layers=12, width=768, heads=12),
    "gpt3-small-2048": lambda: gpt(layers=12, width=768, heads=12, context=2048),
    "gpt3-medium": lambda: gpt(layers=24, width=1024, heads=16),
    "gpt3-1.3b": lambda: gpt(layers=24, width=2048, heads=16),
    "gpt-char": lambda: gpt(layers=4, width=128, heads=4, vocabulary=256, context=128),
    "vit-b16": lambda: vit(layers=12, width=768, heads=12, patch=16, side=224, classes=1000),
}
"""All of the zoo but digits-cnn, retinanet-r18 and deeplabv3plus-r18, which have always been plain PyTorch."""
