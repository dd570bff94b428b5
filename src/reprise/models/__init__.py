"""Networks of one member: pure forward passes whose parameters are drawn from a stream."""

from .activations import ACTIVATIONS
from .convnet import ConvNet
from .embedding import EmbeddingMLP
from .initialise import initialise, materialise
from .mlp import MLP
from .model import Model
from .objective import Objective
from .resnet import ResNet
from .transformer import Transformer
from .vgg import VGG

__all__ = [
    "ACTIVATIONS",
    "MLP",
    "VGG",
    "ConvNet",
    "EmbeddingMLP",
    "Model",
    "Objective",
    "ResNet",
    "Transformer",
    "initialise",
    "materialise",
]
