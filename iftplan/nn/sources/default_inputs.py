"""Default inputs of a built model."""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature

from torch import nn

from iftplan.base.errors import InputError
from iftplan.models.spec import InputSpec

DEFAULT_TOKENS = 128
DEFAULT_SIDE = 224
_NOTED = "iftplan_inputs"


HOW_TO_GIVE_INPUTS = (
    "give their shapes, for images such as `inputs='1x3x224x224'`, for tokens such as `inputs='1x128:int64'`, by "
    "name such as `inputs='pixel_values=1x3x224x224'`."
)


def note_inputs(model: nn.Module, inputs: tuple[InputSpec, ...]) -> None:
    """Store the default inputs of a model on the model, so that copies have them too."""
    vars(model)[_NOTED] = inputs


def known_inputs(model: str, inputs: Sequence[InputSpec]) -> tuple[InputSpec, ...]:
    """The inputs that a model is counted with, if there are any.

    Raises:
        InputError: there are none; says how to give them.
    """
    if not inputs:
        raise InputError(f"{model} does not say what its inputs are; {HOW_TO_GIVE_INPUTS}")
    return tuple(inputs)


def default_inputs(model: nn.Module) -> tuple[InputSpec, ...]:
    """Inputs that were noted when a model was built, or from the configuration that one of transformers, timm or torchvision carries.

    Images have the configuration's size and channels, or 3×224×224; texts have 128 tokens, or as many as
    the model has positions if those are fewer. Empty if the model carries none.
    """
    noted: tuple[InputSpec, ...] = vars(model).get(_NOTED, ())
    if noted:
        return noted
    config = getattr(model, "config", None)
    match getattr(model, "main_input_name", None):
        case "pixel_values" if config is not None:
            return (_image(config),)
        case "input_ids" if config is not None:
            return _tokens(model, config)
    for timm_config in (getattr(model, "pretrained_cfg", None), getattr(model, "default_cfg", None)):
        size = timm_config.get("input_size") if isinstance(timm_config, dict) else None
        if size:
            return (InputSpec((1, *size)),)
    if type(model).__module__.startswith("torchvision."):
        return (InputSpec((1, 3, DEFAULT_SIDE, DEFAULT_SIDE)),)
    return ()


def _image(config: object) -> InputSpec:
    size = getattr(config, "image_size", None) or DEFAULT_SIDE
    height, width = (size, size) if isinstance(size, int) else size
    return InputSpec((1, getattr(config, "num_channels", 3), height, width))


def _tokens(model: nn.Module, config: object) -> tuple[InputSpec, ...]:
    text_config = getattr(config, "get_text_config", lambda: config)()  # a model of text and images nests it
    positions = getattr(text_config, "max_position_embeddings", None) or DEFAULT_TOKENS
    shape = (1, min(DEFAULT_TOKENS, positions))
    if (
        getattr(config, "is_encoder_decoder", False)
        and "decoder_input_ids" in signature(model.forward).parameters
    ):
        return InputSpec(shape, "int64", "input_ids"), InputSpec(shape, "int64", "decoder_input_ids")
    return (InputSpec(shape, "int64"),)
